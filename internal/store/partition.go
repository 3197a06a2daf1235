package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
)

// Partition is a collection that is stored by itself, with the indexes that its
// lists need. Collections without one share the partition of foreign records.
type Partition struct {
	Collection syntax.NSID
	Lists      []ListIndex
}

// ListIndex is a way in which a collection is listed. Every collection can also
// be listed as a whole, and by repository.
type ListIndex struct {
	// Repo is set where the list is always of one repository.
	Repo bool `json:"repo,omitempty"`
	// Required and Optional are the properties in [Change.Filter] that the list
	// filters on, always or at times.
	Required []Column `json:"required,omitempty"`
	Optional []Column `json:"optional,omitempty"`
}

// Column is a property that lists filter on.
type Column struct {
	Name  string `json:"name"`
	Array bool   `json:"array,omitempty"` // the property is an array, and one equal element is enough
}

// ensure makes the partition and its indexes as far as they are missing, and drops
// the indexes of lists that are no more.
func (p Partition) ensure(ctx context.Context, conn *pgx.Conn) error {
	if len(p.Collection) > maxCollection {
		return &TooLong{Name: "collection", Bytes: len(p.Collection), Most: maxCollection}
	}
	lists, err := json.Marshal(p.Lists)
	if err != nil {
		return fmt.Errorf("encode its lists: %w", err)
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := p.ensureTable(ctx, tx); err != nil {
			return err
		}
		if err := p.ensureIndexes(ctx, tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			INSERT INTO partitions (collection, name, lists) VALUES ($1, $2, $3)
			ON CONFLICT (collection) DO UPDATE SET lists = excluded.lists WHERE partitions.lists <> excluded.lists`,
			p.Collection, p.table(), lists)
		return err
	})
}

// ensureTable makes the table, and moves what the foreign records have of the
// collection into it. Writers wait meanwhile.
func (p Partition) ensureTable(ctx context.Context, tx pgx.Tx) error {
	var exists bool
	err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM partitions WHERE collection = $1)", p.Collection).Scan(&exists)
	if err != nil || exists {
		return err
	}
	settings, err := storage(ctx, tx)
	if err != nil {
		return err
	}
	table := pgx.Identifier{p.table()}.Sanitize()
	for _, statement := range []string{
		"LOCK TABLE records IN SHARE ROW EXCLUSIVE MODE",
		"CREATE TABLE " + table + " (LIKE records INCLUDING DEFAULTS INCLUDING COMPRESSION) WITH (" + settings + ")",
		`WITH moved AS (DELETE FROM records_foreign WHERE collection = ` + quote(string(p.Collection)) + ` RETURNING *)
			INSERT INTO ` + table + ` SELECT * FROM moved`,
		"CREATE UNIQUE INDEX ON " + table + " (did, rkey)",
		"ALTER TABLE records ATTACH PARTITION " + table + " FOR VALUES IN (" + quote(string(p.Collection)) + ")",
	} {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return fmt.Errorf("make the table: %w", err)
		}
	}
	return nil
}

// storage is how a partition keeps its rows: with room for the next version of a
// record beside the one that it replaces. Where a server lacks lz4, values that fit into
// a page are not packed at all (see 00016_storage.sql).
func storage(ctx context.Context, tx pgx.Tx) (settings string, err error) {
	var lz4 bool
	err = tx.QueryRow(ctx, "SELECT attcompression = 'l' FROM pg_attribute WHERE attrelid = 'records'::regclass AND attname = 'value'").Scan(&lz4)
	if err != nil {
		return "", fmt.Errorf("read how values are packed: %w", err)
	}
	if lz4 {
		return "fillfactor = 90", nil
	}
	return "fillfactor = 90, toast_tuple_target = 8160", nil
}

// distinct is for an index that ends with the record's key: PostgreSQL need not look for
// entries that are the same before it splits a page (see 00021_distinct.sql). It is not
// part of the definition, by which indexes are told apart.
const distinct = " SET (deduplicate_items = off)"

func (p Partition) ensureIndexes(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() AND tablename = $1", p.table())
	if err != nil {
		return fmt.Errorf("read the indexes: %w", err)
	}
	existing, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("read the indexes: %w", err)
	}
	wanted := p.indexes()
	for name, definition := range wanted {
		if slices.Contains(existing, name) {
			continue
		}
		statement := "CREATE INDEX " + pgx.Identifier{name}.Sanitize() + " ON " + pgx.Identifier{p.table()}.Sanitize() + " " + definition
		if !strings.HasPrefix(definition, "USING") {
			statement += "; ALTER INDEX " + pgx.Identifier{name}.Sanitize() + distinct
		}
		if _, err := tx.Exec(ctx, statement); err != nil {
			return fmt.Errorf("make the index %s: %w", name, err)
		}
	}
	for _, name := range existing {
		if _, ok := wanted[name]; ok || !strings.HasPrefix(name, indexPrefix) {
			continue
		}
		if _, err := tx.Exec(ctx, "DROP INDEX "+pgx.Identifier{name}.Sanitize()); err != nil {
			return fmt.Errorf("drop the index %s: %w", name, err)
		}
	}
	return nil
}

const (
	maxIdentifier = 63 // bytes, of a name in PostgreSQL
	indexPrefix   = "list_"
)

// table is the name of the partition.
func (p Partition) table() string { return identifier("records_", string(p.Collection)) }

// identifier makes a name that is readable, always the same for the same text, and
// differs for different ones however long they are.
func identifier(prefix, text string) string {
	sum := sha256.Sum256([]byte(text))
	readable := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '_'
	}, text)
	hash := "_" + hex.EncodeToString(sum[:5])
	if room := maxIdentifier - len(prefix) - len(hash); len(readable) > room {
		readable = readable[len(readable)-room:] // the end tells most
	}
	return prefix + readable + hash
}

// indexes are the definitions of all indexes that the lists need, by name. A name
// contains a hash of what it names, so that a changed definition is another index.
func (p Partition) indexes() map[string]string {
	all := map[string]string{}
	add := func(definition string, names ...string) {
		_, last, _ := cutLast(string(p.Collection))
		readable := strings.Join(append([]string{last}, names...), "_")
		all[indexName(readable, string(p.Collection)+" "+definition)] = definition
	}
	add("(sort_key, did, rkey)", "recent")
	add("(did, sort_key, rkey)", "repo")
	for _, list := range p.Lists {
		list.indexes(add)
	}
	return all
}

func indexName(readable, definition string) string {
	sum := sha256.Sum256([]byte(definition))
	name := identifier("", readable)
	name = name[:len(name)-11] // its hash is of the readable part alone
	if most := maxIdentifier - len(indexPrefix) - 11; len(name) > most {
		name = name[:most]
	}
	return indexPrefix + name + "_" + hex.EncodeToString(sum[:5])
}

func cutLast(nsid string) (before, last string, found bool) {
	i := strings.LastIndexByte(nsid, '.')
	return nsid[:max(i, 0)], nsid[i+1:], i >= 0
}

// indexes gives the definitions that one list needs. The lead, which the list
// always fixes, comes first, then one further property if any, then the order of
// the list: a page is a range of the index. With two further properties, the
// rows in the range of one are filtered by the other. No key exceeds PostgreSQL's
// 2,704 bytes: two terms of 512, a DID of 1,024 and a record key of 512.
func (l ListIndex) indexes(add func(definition string, names ...string)) {
	lead := l.lead()
	if lead != "" && lead != leadRepo {
		add("(("+scalar(lead)+"), sort_key, did, rkey)", lead)
	}
	for _, c := range append(slices.Clone(l.Required), l.Optional...) {
		switch {
		case c.Name == lead:
		case c.Array:
			// Not partial, since PostgreSQL uses no statistics of partial indexes. Without
			// fastupdate no reader pays for what writers have put off.
			add("USING gin (list_terms("+scopeOf(lead)+", "+array(c.Name)+")) WITH (fastupdate = off)", lead, c.Name)
		case lead == leadRepo:
			add("(did, ("+scalar(c.Name)+"), sort_key, rkey) WHERE "+scalar(c.Name)+" IS NOT NULL", lead, c.Name)
		case lead == "":
			add("(("+scalar(c.Name)+"), sort_key, did, rkey) WHERE "+scalar(c.Name)+" IS NOT NULL", c.Name)
		default:
			add("(("+scalar(lead)+"), ("+scalar(c.Name)+"), sort_key, did, rkey) WHERE "+scalar(c.Name)+" IS NOT NULL", lead, c.Name)
		}
	}
}

// leadRepo is the lead of the lists of one repository. No property can have the name.
const leadRepo = "@repo"

// lead is what the list always fixes: the repository, or the first required
// property that is no array, or nothing.
func (l ListIndex) lead() string {
	if l.Repo {
		return leadRepo
	}
	for _, c := range l.Required {
		if !c.Array {
			return c.Name
		}
	}
	return ""
}

// scalar is the SQL for a property that is no array, array that for one that is.
func scalar(name string) string { return `(filter ->> ` + quote(name) + `) COLLATE "C"` }

func array(name string) string { return `(filter -> ` + quote(name) + `)` }

// scopeOf is the scope by which list_terms hashes the elements of an array.
func scopeOf(lead string) string {
	switch lead {
	case leadRepo:
		return "did"
	case "":
		return "''"
	}
	return "(filter ->> " + quote(lead) + ")"
}

// quote makes a text a literal of SQL. It is for names that come from lexicons and
// that have to be known when a statement is planned; values are parameters.
func quote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", "''") + "'"
}

package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/jackc/pgx/v5"
	"github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
)

// truth is what an index must hold, by the network's account.
type truth map[record.Key]simulate.Entry

// followed is every collection that an index with the default settings follows.
var followed = fixture.Collections()

// truthOf is what a simulated network says an index must hold now, in the collections
// that are followed by default and in others.
func truthOf(w *simulate.World, others ...syntax.NSID) truth {
	return truthAt(w, w.LastSeq(), others...)
}

// truthAt is the same as of a certain event; 0 is before the first.
func truthAt(w *simulate.World, through int64, others ...syntax.NSID) truth {
	all := truth{}
	if through == 0 {
		return all
	}
	for entry := range w.Records(simulate.View{Through: through}) {
		if slices.Contains(followed, entry.Key.Collection) || slices.Contains(others, entry.Key.Collection) {
			all[entry.Key] = entry
		}
	}
	return all
}

// in is the part of the truth in some collections.
func (tr truth) in(collections ...syntax.NSID) truth {
	part := truth{}
	for key, entry := range tr {
		if slices.Contains(collections, key.Collection) {
			part[key] = entry
		}
	}
	return part
}

func (tr truth) keys() []record.Key {
	return slices.SortedFunc(maps.Keys(tr), func(a, b record.Key) int { return strings.Compare(a.String(), b.String()) })
}

// differences gathers what two sides disagree on, for a message that stays readable.
type differences struct {
	lines []string
	count int
}

const shownDifferences = 8

func (d *differences) add(format string, args ...any) {
	if d.count++; d.count <= shownDifferences {
		d.lines = append(d.lines, fmt.Sprintf(format, args...))
	}
}

// require fails the test if there are any.
func (d *differences) require(t *testing.T, what string) {
	t.Helper()
	if d.count > 0 {
		t.Fatalf("%s: %d differences, the first:\n  %s", what, d.count, strings.Join(d.lines, "\n  "))
	}
}

// compareKeys notes keys that only one side has. want names what should be there.
func compareKeys[W, H any](d *differences, want map[record.Key]W, have map[record.Key]H) {
	for key := range want {
		if _, ok := have[key]; !ok {
			d.add("missing: %s", key)
		}
	}
	for key := range have {
		if _, ok := want[key]; !ok {
			d.add("should not be there: %s", key)
		}
	}
}

// sameValue checks that a value in its JSON form is the record's block, byte for
// byte, and has its CID.
func (entry simulated) sameValue(value []byte, claimed string) error {
	decoded, err := atdata.UnmarshalJSON(value)
	if err != nil {
		return fmt.Errorf("value does not decode: %w", err)
	}
	block, err := atdata.MarshalCBOR(decoded)
	if err != nil {
		return fmt.Errorf("value does not encode: %w", err)
	}
	address, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(block)
	if err != nil {
		return err
	}
	switch {
	case claimed != string(entry.CID):
		return fmt.Errorf("has the CID %s, should have %s", claimed, entry.CID)
	case address.String() != claimed:
		return fmt.Errorf("value has the CID %s, but claims %s", address, claimed)
	case !bytes.Equal(block, entry.CBOR):
		return fmt.Errorf("value differs from the record's block")
	}
	return nil
}

// simulated is an entry of the truth, wherever it comes from.
type simulated simulate.Entry

// snapshot is what PostgreSQL shows at one moment.
type snapshot struct {
	cursor  int64
	records map[record.Key]stored
}

// stored is a record's row.
type stored struct {
	cid, value string
	version    int64
}

// snapshot reads cursor and records in one transaction: the server may still be
// committing for a client that was just killed.
func (d *deployment) snapshot() snapshot {
	d.t.Helper()
	ctx := d.t.Context()
	tx, err := d.Database.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	require.NoError(d.t, err)
	defer func() { _ = tx.Rollback(ctx) }()
	s := snapshot{records: map[record.Key]stored{}}
	require.NoError(d.t, tx.QueryRow(ctx, "SELECT coalesce(max(seq), 0) FROM cursor").Scan(&s.cursor))
	rows, err := tx.Query(ctx, `
		SELECT collection, did, rkey, cid, value::text, version FROM records
		WHERE did NOT IN (SELECT did FROM repos WHERE NOT active)`)
	require.NoError(d.t, err)
	for rows.Next() {
		var key record.Key
		var row stored
		require.NoError(d.t, rows.Scan(&key.Collection, &key.DID, &key.Rkey, &row.cid, &row.value, &row.version))
		s.records[key] = row
	}
	require.NoError(d.t, rows.Err())
	return s
}

// equal requires that PostgreSQL holds the truth: every record, no other, each the
// same under DAG-CBOR.
func (d *deployment) equal(s snapshot, want truth, when string) {
	d.t.Helper()
	var diff differences
	compareKeys(&diff, want, s.records)
	for key, entry := range want {
		row, ok := s.records[key]
		if !ok || d.checked[row.cid] == row.value && row.cid == string(entry.CID) {
			continue
		}
		if err := simulated(entry).sameValue([]byte(row.value), row.cid); err != nil {
			diff.add("%s: %v", key, err)
			continue
		}
		d.checked[row.cid] = row.value
	}
	diff.require(d.t, fmt.Sprintf("PostgreSQL %s (cursor %d, %d records, should be %d)", when, s.cursor, len(s.records), len(want)))
}

package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/record"
)

// The way of a batch: [readPresent] reads what the batch meets, in one round
// trip; [Writer.decide], without I/O, works out what has to be written; and
// [effect.write] writes it, in one more.

// present is what a batch meets: the rows before it.
type present struct {
	clock     uint32 // which table that is
	version   int64  // the last one drawn; enough for every change were drawn with it
	now       time.Time
	repos     map[syntax.DID]Repo
	records   map[record.Key]stored
	referrers map[record.Key][]record.Key // of each record that may arrive, up to one more than are enqueued at once
	rebuilds  []record.Target             // the projections that are being built anew
	lettered  map[syntax.DID]bool         // the repositories with dead letters
	letters   map[int64]bool              // which of the dead letters that are put through again are still there
}

// readPresent proves that the lock is held, draws the batch's versions, and reads
// what it meets; with trust, not the records that commits create.
func readPresent(ctx context.Context, tx pgx.Tx, b *Batch, changes []keyChange, trust bool) (*present, error) {
	p := &present{
		repos: map[syntax.DID]Repo{}, lettered: map[syntax.DID]bool{}, letters: map[int64]bool{},
		records: map[record.Key]stored{}, referrers: map[record.Key][]record.Key{},
	}
	held := false
	batch := &pgx.Batch{}
	// The session has the lock already, so this succeeds for as long as it has; it
	// fails where the session is not what it seems to be, as behind a transaction pooler.
	batch.Queue("SELECT pg_try_advisory_xact_lock("+lockNumber+")", writerLock).
		QueryRow(func(row pgx.Row) error { return row.Scan(&held) })
	// The cursor promises that what came before it is on disk. With "off", a crash of
	// the server could take back transactions that it had confirmed, while Redis,
	// Elasticsearch and Neo4j keep what followed from them. A stricter setting stays.
	batch.Queue("SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') IN ('off', 'local')")
	draws := len(changes) + len(b.Repos) + len(b.Purge)
	draw, args := "UPDATE clock SET version = version + $1 RETURNING version, now()", []any{draws}
	if draws == 0 {
		draw, args = "SELECT version, now() FROM clock FOR UPDATE", nil
	}
	batch.Queue(draw, args...).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&p.version, &p.now)
		if errors.Is(err, pgx.ErrNoRows) { // a [Succession] has taken the row away
			return errSucceeded
		}
		return err
	})
	// With the clock's row held, no other tables can take the place of these.
	batch.Queue("SELECT coalesce(to_regclass('clock')::oid, 0)").QueryRow(func(row pgx.Row) error { return row.Scan(&p.clock) })
	p.queueRebuilds(batch)
	p.queueRepos(batch, b, changes)
	p.queueRecords(batch, changes, trust)
	p.queueReferrers(batch, changes)
	p.queueLetters(batch, changes)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("read what the batch meets: %w", err)
	}
	if !held {
		return nil, ErrLockLost
	}
	return p, nil
}

func (p *present) queueRepos(batch *pgx.Batch, b *Batch, changes []keyChange) {
	seen := map[syntax.DID]struct{}{}
	var dids []string
	add := func(did syntax.DID) {
		if _, ok := seen[did]; !ok {
			seen[did] = struct{}{}
			dids = append(dids, string(did))
		}
	}
	for _, u := range b.Repos {
		add(u.DID)
	}
	for _, did := range b.Purge {
		add(did)
	}
	for _, c := range changes {
		add(c.Key.DID)
	}
	if len(dids) == 0 {
		return
	}
	batch.Queue(selectRepos, dids).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, scanRepo)
		p.repos = byDID(found)
		return err
	})
	batch.Queue(`SELECT f.did FROM unnest($1::text[]) AS f (did)
		WHERE EXISTS (SELECT FROM dead_letters d WHERE hashtextextended(d.did, 0) = hashtextextended(f.did, 0) AND d.did = f.did)`, dids).
		Query(func(rows pgx.Rows) error {
			var did syntax.DID
			_, err := pgx.ForEachRow(rows, []any{&did}, func() error {
				p.lettered[did] = true
				return nil
			})
			return err
		})
}

func (p *present) queueRecords(batch *pgx.Batch, changes []keyChange, trust bool) {
	keys := make([]record.Key, 0, len(changes))
	for i := range changes {
		if !trust || !changes[i].isNew() {
			keys = append(keys, changes[i].Key)
		}
	}
	for collection, names := range byCollection(keys) {
		batch.Queue(`
			SELECT r.did, r.rkey, r.rev, r.cid, r.targets FROM unnest($1::text[], $2::text[]) AS k (did, rkey)
			JOIN records r ON r.did = k.did AND r.rkey = k.rkey
			WHERE r.collection = `+quote(string(collection)), names.dids, names.rkeys).
			Query(func(rows pgx.Rows) error {
				key, old := record.Key{Collection: collection}, stored{}
				_, err := pgx.ForEachRow(rows, []any{&key.DID, &key.Rkey, &old.rev, &old.cid, &old.targets}, func() error {
					p.records[key] = old
					return nil
				})
				return err
			})
	}
}

func (p *present) queueLetters(batch *pgx.Batch, changes []keyChange) {
	var ids []int64
	for _, c := range changes {
		if c.DeadLetter != 0 {
			ids = append(ids, c.DeadLetter)
		}
	}
	if len(ids) == 0 {
		return
	}
	batch.Queue("SELECT id FROM dead_letters WHERE id = ANY ($1)", ids).Query(func(rows pgx.Rows) error {
		var id int64
		_, err := pgx.ForEachRow(rows, []any{&id}, func() error {
			p.letters[id] = true
			return nil
		})
		return err
	})
}

// names are the keys of one collection, as parameters of a statement.
type names struct{ dids, rkeys []string }

func (n *names) add(k record.Key) {
	n.dids, n.rkeys = append(n.dids, string(k.DID)), append(n.rkeys, string(k.Rkey))
}

// splitKeys gives keys of any collections as parameters of a statement.
func splitKeys(keys []record.Key) (collections []string, n names) {
	for _, k := range keys {
		n.add(k)
		collections = append(collections, string(k.Collection))
	}
	return collections, n
}

// byCollection groups keys. Statements name their collection as a literal, so that
// a plan concerns the one partition and not all of them.
func byCollection(keys []record.Key) map[syntax.NSID]*names {
	groups := map[syntax.NSID]*names{}
	for _, k := range keys {
		n := groups[k.Collection]
		if n == nil {
			n = &names{}
			groups[k.Collection] = n
		}
		n.add(k)
	}
	return groups
}

// effect is what a batch comes to.
type effect struct {
	batch   *Batch
	version int64 // the last that the batch drew
	now     time.Time
	repos   []Repo
	flips   []flip
	events  []loggedEvent
	silent  bool // keeps no log of events
	inserts []row
	updates []row
	deletes []record.Key
	ended   refRows // of what is updated and deleted
	outbox  []outboxRow
	arrived []arrival    // with more referrers than are enqueued at once
	settled []record.Key // whose dead letters older than revs are overtaken
	revs    []string     // of the changes in settled
	replays []int64      // dead letters that were put through again
	whole   fetches      // repositories that were fetched whole

	// What becomes of the list of repositories to fetch, see [effect.decideResync].
	broken                 []Wanted
	begun, fetched, mended []string
}

// fetches are repositories and the revs at which they were fetched.
type fetches struct{ dids, revs []string }

// row is a record to insert, or to put in the place of the stored one.
type row struct {
	*keyChange
	version int64
	renewed bool // an update that gets a new place in lists
}

// flip is a repository that became active or inactive.
type flip struct {
	did     syntax.DID
	version int64
}

// outboxRows is how many a change has where all projections follow its collection.
const outboxRows = 3

// decide works out what a batch has to write. It is where each guard against
// replays and overtaken changes stands.
func (w *Writer) decide(b *Batch, changes []keyChange, p *present) *effect {
	e := &effect{batch: b, version: p.version, now: p.now, silent: w.silent}
	e.events, e.inserts = make([]loggedEvent, 0, len(changes)), make([]row, 0, len(changes))
	e.outbox = make([]outboxRow, 0, outboxRows*len(changes))
	version := p.version - int64(len(changes)+len(b.Repos)+len(b.Purge))
	for i := range changes {
		version++
		w.decideChange(e, p, &changes[i], version)
	}
	e.decideRepos(b, changes, p, version)
	e.addTwins(p.rebuilds)
	return e
}

func (w *Writer) decideChange(e *effect, p *present, c *keyChange, version int64) {
	if c.DeadLetter != 0 {
		// A repository that is not in step may have deleted or replaced the record in a
		// commit that was missed: fetching it tells, and settles the letter.
		if !p.letters[c.DeadLetter] || p.repos[c.Key.DID].Sync != Synchronized {
			return
		}
		e.replays = append(e.replays, c.DeadLetter)
	}
	var old *stored
	if found, ok := p.records[c.Key]; ok {
		old = &found
	}
	repo := p.repos[c.Key.DID].Rev
	if p.lettered[c.Key.DID] && (old != nil && c.Rev >= old.rev || old == nil && c.Rev >= repo) {
		e.settled, e.revs = append(e.settled, c.Key), append(e.revs, string(c.Rev))
	}
	if !c.takesEffect(old, repo) {
		return
	}
	if old != nil {
		e.ended.add(c.Key, old.targets)
	}
	switch {
	case c.Action == record.Delete:
		e.deletes = append(e.deletes, c.Key)
		e.log(letterDelete, c, version, old)
	case old != nil:
		e.updates = append(e.updates, row{keyChange: c, version: version, renewed: c.renews(old)})
		e.log(letterUpdate, c, version, old)
	default:
		e.inserts = append(e.inserts, row{keyChange: c, version: version})
		e.log(letterCreate, c, version, nil)
		w.decideReferrers(e, p, c.Key, version)
	}
	for _, target := range w.routes[c.Key.Collection] {
		e.outbox = append(e.outbox, outboxRow{target: target, key: c.Key, version: version})
	}
}

// decideRepos applies the updates in their order, and gives every repository with a
// change a row.
func (e *effect) decideRepos(b *Batch, changes []keyChange, p *present, version int64) {
	after := map[syntax.DID]*Repo{}
	touch := func(did syntax.DID) *Repo {
		if r := after[did]; r != nil {
			return r
		}
		r, ok := p.repos[did]
		if !ok {
			r = newRepo(did)
		}
		after[did] = &r
		return &r
	}
	fetched := map[syntax.DID]bool{}
	for i := range b.Repos {
		u := &b.Repos[i]
		touch(u.DID).update(u, b.Host)
		fetched[u.DID] = fetched[u.DID] || u.Resync
		if u.Resync && u.Sync != nil && *u.Sync == Synchronized && u.Rev != nil {
			e.whole.dids, e.whole.revs = append(e.whole.dids, string(u.DID)), append(e.whole.revs, string(*u.Rev))
		}
	}
	for _, did := range b.Purge {
		touch(did).purge()
	}
	for i := range changes {
		if _, ok := p.repos[changes[i].Key.DID]; !ok {
			touch(changes[i].Key.DID)
		}
	}
	for did, r := range after {
		e.repos = append(e.repos, *r)
		if old, ok := p.repos[did]; r.Active != (!ok || old.Active) {
			version++
			e.flips = append(e.flips, flip{did: did, version: version})
			e.logAccount(r, version)
		} else if ok && r.Status != old.Status {
			version++
			e.logAccount(r, version)
		}
	}
	slices.SortFunc(e.repos, func(a, b Repo) int { return cmp.Compare(a.DID, b.DID) })
	for i := range e.repos {
		did := e.repos[i].DID
		var before *Repo
		if old, ok := p.repos[did]; ok {
			before = &old
		}
		e.decideResync(before, &e.repos[i], fetched[did])
	}
}

// write sends all statements together, which take effect in this order, and then
// copies in what is new. COPY costs a round trip or two more than INSERT and an
// eighth less of the server's time for each row.
func (e *effect) write(ctx context.Context, tx pgx.Tx) error {
	batch := &pgx.Batch{}
	e.writeOverrun(batch)
	e.writeRepos(batch)
	e.writeResyncs(batch)
	e.writeHeld(batch)
	e.writePurges(batch)
	e.writeRefs(batch)
	e.writeRecords(batch)
	e.writeSweeps(batch)
	e.writeLetters(batch)
	e.writeChanged(batch)
	e.writePacks(batch)
	e.writeCursor(batch)
	e.writeTrace(ctx, batch)
	e.writeEvents(batch)
	refs := e.arrange() // while the server carries these out
	if batch.Len() > 0 {
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return fmt.Errorf("write the batch: %w", err)
		}
	}
	return e.copyIn(ctx, tx, refs())
}

func (e *effect) writeCursor(batch *pgx.Batch) {
	if e.batch.Host != "" {
		batch.Queue(`
			INSERT INTO cursor (host, seq, updated_at) VALUES ($1, $2, now())
			ON CONFLICT (host) DO UPDATE SET seq = excluded.seq, updated_at = excluded.updated_at`, e.batch.Host, e.batch.Cursor)
	}
}

package faults

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/simulate/fault"
	"github.com/layers-pub/layers-appview/test/rig"
)

// lab is a network in which things go wrong, and an installation that follows it.
type lab struct {
	*rig.Deployment
	*author
	t       *testing.T
	network *fault.Network
	server  *simulate.Server
	checked map[string]string // values compared once: CID to the text that has it
}

// newLab sets up an installation on some of the stores. Settings are variables of
// the program, as NAME=value.
func newLab(t *testing.T, a *author, stores *rig.Stores, settings ...string) *lab {
	t.Helper()
	network := &fault.Network{}
	server := simulate.NewServer(a.World, network.Config(simulate.ServerConfig{}))
	require.NoError(t, server.Start("127.0.0.1:0"))
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	l := &lab{author: a, t: t, network: network, server: server, checked: map[string]string{}}
	settings = append(slices.Clone(brisk), settings...)
	l.Deployment = rig.Deploy(t, stores, rig.Upstream{Relay: server.RelayURL(), PLC: server.URL()}, settings...)
	return l
}

// brisk are settings that have the program repeat within moments what in operation
// it repeats within minutes.
var brisk = []string{"LAYERS_RELAY_QUIET=2s", "LAYERS_RELAY_MAX_WAIT=2s", "LAYERS_RESYNC_FIRST_WAIT=100ms",
	"LAYERS_RESYNC_ANSWER_TIME=3s", "LAYERS_RESYNC_STALL_TIME=3s", "LAYERS_RESYNC_MAX_BYTES=100000000", "LAYERS_RESYNC_HOST_RATE=200"}

// streamAlone has the program learn of the network by its stream alone, so that what it
// holds at a cursor is what there was then.
const streamAlone = "LAYERS_BACKFILL=false"

// differences gathers what two sides disagree on, for a message that stays readable.
type differences struct {
	lines []string
	count int
}

func (d *differences) add(format string, args ...any) {
	if d.count++; d.count <= 8 {
		d.lines = append(d.lines, fmt.Sprintf(format, args...))
	}
}

func (d *differences) String() string {
	return fmt.Sprintf("%d differences:\n  %s", d.count, strings.Join(d.lines, "\n  "))
}

// snapshot is what PostgreSQL shows at one moment.
type snapshot struct {
	cursor  int64
	records map[key]row
	repos   map[syntax.DID]repo
	letters map[key]string // CID of the latest refused version
}

type row struct {
	cid, value string
	seen       bool // by those who ask
}

type repo struct{ sync, status string }

// look reads all of it in one transaction: the server may still be committing for a
// client that was just killed.
func (l *lab) look() snapshot {
	l.t.Helper()
	ctx := l.t.Context()
	tx, err := l.Database.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	require.NoError(l.t, err)
	defer func() { _ = tx.Rollback(ctx) }()
	s := snapshot{records: map[key]row{}, repos: map[syntax.DID]repo{}, letters: map[key]string{}}
	require.NoError(l.t, tx.QueryRow(ctx, "SELECT coalesce(max(seq), 0) FROM cursor").Scan(&s.cursor))
	each := func(query string, scan func(pgx.Rows) error) {
		rows, err := tx.Query(ctx, query)
		require.NoError(l.t, err)
		defer rows.Close()
		for rows.Next() {
			require.NoError(l.t, scan(rows))
		}
		require.NoError(l.t, rows.Err())
	}
	each("SELECT did, sync, status FROM repos", func(rows pgx.Rows) error {
		var did syntax.DID
		var r repo
		err := rows.Scan(&did, &r.sync, &r.status)
		s.repos[did] = r
		return err
	})
	each(`SELECT collection, did, rkey, cid, value::text,
		NOT EXISTS (SELECT FROM repos WHERE repos.did = records.did AND NOT active) FROM records`, func(rows pgx.Rows) error {
		var k key
		var r row
		err := rows.Scan(&k.collection, &k.did, &k.rkey, &r.cid, &r.value, &r.seen)
		s.records[k] = r
		return err
	})
	each("SELECT collection, did, rkey, cid FROM dead_letters WHERE stage = 'validate' ORDER BY id", func(rows pgx.Rows) error {
		var k key
		var cid string
		err := rows.Scan(&k.collection, &k.did, &k.rkey, &cid)
		s.letters[k] = cid
		return err
	})
	return s
}

// compare tells how what PostgreSQL holds differs from what it should.
func (l *lab) compare(have snapshot, want state) *differences {
	d := &differences{}
	for k, cid := range want.records {
		switch r, ok := have.records[k]; {
		case !ok:
			d.add("missing: %s", k)
		case !r.seen:
			d.add("hidden, although its account is active: %s", k)
		case r.cid != cid:
			d.add("%s has the CID %s, should have %s", k, r.cid, cid)
		default:
			l.sameValue(d, k, r)
		}
	}
	for k, r := range have.records {
		_, wanted := want.records[k]
		switch {
		case r.seen && !wanted:
			d.add("should not be seen: %s (its account is %q)", k, want.status[k.did])
		case want.status[k.did] == simulate.Deleted:
			d.add("should not be stored, since its account is deleted: %s", k)
		}
	}
	for k, cid := range want.letters {
		if want.status[k.did] == simulate.Active && have.letters[k] != cid {
			d.add("%s was refused, but its dead letter is of %q", k, have.letters[k])
		}
	}
	return d
}

// sameValue checks that a value in JSON is the record to the byte, once both are
// encoded.
func (l *lab) sameValue(d *differences, k key, r row) {
	if l.checked[r.cid] == r.value {
		return
	}
	value, err := fromJSON(r.value)
	if err != nil {
		d.add("%s: value: %v", k, err)
		return
	}
	if is := address(encode(value)); is != r.cid {
		d.add("%s has a value whose CID is %s, not %s", k, is, r.cid)
		return
	}
	l.checked[r.cid] = r.value
}

// equal waits until the index is what the oracle says, with every repository in
// step, by itself.
func (l *lab) equal(alive ...*rig.Process) {
	l.t.Helper()
	last, want := l.LastSeq(), l.now()
	l.Reach(last, alive...)
	rig.Eventually(l.t, "the index to be what it should", func() (bool, string) {
		d := l.wrong(want)
		return d.count == 0, d.String()
	}, alive...)
}

// wrong tells how the index is not what it should be, with what it has yet to fetch
// before all else.
func (l *lab) wrong(want state) *differences {
	have := l.look()
	waiting := &differences{}
	for did, r := range have.repos {
		if r.sync != "synchronized" && want.status[did] == simulate.Active {
			waiting.add("%s is %s: %s", did, r.sync, l.fetching(did))
		}
	}
	if have.cursor < l.LastSeq() {
		waiting.add("the cursor is at %d of %d", have.cursor, l.LastSeq())
	}
	d := l.compare(have, want)
	return &differences{lines: append(waiting.lines, d.lines...), count: waiting.count + d.count}
}

// fetching tells how the fetch of a repository goes.
func (l *lab) fetching(did syntax.DID) (how string) {
	l.t.Helper()
	err := l.Database.QueryRow(l.t.Context(), "SELECT coalesce((SELECT to_jsonb(r)::text FROM resyncs r WHERE did = $1), 'not to be fetched')", did).Scan(&how)
	require.NoError(l.t, err)
	return how
}

// prefix requires that the index is what it should be as of its cursor.
func (l *lab) prefix(when string) int64 {
	l.t.Helper()
	have := l.look()
	d := l.compare(have, l.at(have.cursor))
	require.Zero(l.t, d.count, "%s, at the cursor %d: %s", when, have.cursor, d)
	return have.cursor
}

// happened requires that each fault has fired.
func happened(t *testing.T, faults ...fault.Fault) {
	t.Helper()
	for _, f := range faults {
		require.Positive(t, f.Fired(), "the fault %q never happened", f.Name())
		t.Logf("%s: %d times", f.Name(), f.Fired())
	}
}

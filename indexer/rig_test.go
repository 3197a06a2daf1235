package indexer_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer"
	"github.com/layers-pub/layers-appview/indexer/firehose"
	"github.com/layers-pub/layers-appview/indexer/verify"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/directory"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

const (
	corpus  = syntax.NSID("pub.layers.corpus.corpus")
	patient = 60 * time.Second // a condition that has not come by then will not
	tick    = 10 * time.Millisecond
)

// rig is a simulated network, a database, and the line between them.
type rig struct {
	t      *testing.T
	world  *simulate.World
	server *simulate.Server
	db     *storetest.Database
	writer *store.Writer
	stop   func()                // ends the line; nil while it does not run
	adjust func(*indexer.Config) // nil for the defaults

	fetcher *fetcher // nil without one
}

func newRig(t *testing.T, world simulate.Config, network simulate.ServerConfig) *rig {
	t.Helper()
	w, err := simulate.NewWorld(world)
	require.NoError(t, err)
	server := simulate.NewServer(w, network)
	require.NoError(t, server.Start("127.0.0.1:0"))
	r := &rig{t: t, world: w, server: server, db: storetest.New(t)}
	r.writer = store.NewWriter(r.db.Pool, nil, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		r.end()
		_ = server.Stop()
		_ = w.Close()
	})
	return r
}

func (r *rig) indexer() *indexer.Indexer {
	r.t.Helper()
	c, err := catalog.Load()
	require.NoError(r.t, err)
	logger := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		logger = slog.New(slog.NewTextHandler(r.t.Output(), nil))
	}
	identities := directory.New(directory.Config{PLCURL: r.server.URL(), AllowPrivate: true, PDSHosts: []string{r.server.URL()}})
	cfg := indexer.Config{
		Firehose: firehose.New(firehose.Config{Hosts: []string{r.server.RelayURL()}, Logger: logger, MinBackoff: 10 * time.Millisecond}, nil),
		Verifier: verify.New(identities), Catalog: c, Writer: r.writer, VerifiedHandle: identities.VerifiedHandle,
		Logger: logger, CursorEvery: 20 * time.Millisecond,
	}
	if r.adjust != nil {
		r.adjust(&cfg)
	}
	return indexer.New(cfg)
}

// start runs the line until end.
func (r *rig) start() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	ix := r.indexer()
	go func() { done <- ix.Run(ctx) }()
	r.stop = func() {
		cancel()
		require.NoError(r.t, <-done)
		r.stop = nil
	}
}

func (r *rig) end() {
	if r.stop != nil {
		r.stop()
	}
}

// caughtUp waits until the stream has been applied to its end.
func (r *rig) caughtUp() {
	r.t.Helper()
	last := r.world.LastSeq()
	require.Eventually(r.t, func() bool {
		seq, _, err := r.writer.Cursor(r.t.Context(), r.server.RelayURL())
		return err == nil && seq >= last
	}, patient, 10*time.Millisecond, "the stream was not applied up to %d", last)
}

func (r *rig) account(name string) syntax.DID {
	r.t.Helper()
	account, err := r.world.CreateAccount(name)
	require.NoError(r.t, err)
	return account
}

func (r *rig) commit(account syntax.DID, writes ...simulate.Write) {
	r.t.Helper()
	_, err := r.world.Commit(account, writes...)
	require.NoError(r.t, err)
}

func named(name string) map[string]any {
	return map[string]any{"$type": string(corpus), "name": name, "createdAt": "2026-01-01T00:00:00Z"}
}

// indexed reads what the database has, by key.
func (r *rig) indexed() map[record.Key]syntax.CID {
	r.t.Helper()
	rows, err := r.db.Pool.Query(r.t.Context(), "SELECT did, collection, rkey, cid FROM records")
	require.NoError(r.t, err)
	defer rows.Close()
	out := map[record.Key]syntax.CID{}
	for rows.Next() {
		var key record.Key
		var cid syntax.CID
		require.NoError(r.t, rows.Scan(&key.DID, &key.Collection, &key.Rkey, &cid))
		out[key] = cid
	}
	require.NoError(r.t, rows.Err())
	return out
}

// truth is what the network says the index must have.
func (r *rig) truth() map[record.Key]syntax.CID {
	out := map[record.Key]syntax.CID{}
	for entry := range r.world.Records(simulate.View{}) {
		if strings.HasPrefix(string(entry.Key.Collection), "pub.layers.") {
			out[entry.Key] = entry.CID
		}
	}
	return out
}

func (r *rig) requireTruth() {
	r.t.Helper()
	require.Equal(r.t, r.truth(), r.indexed())
}

func (r *rig) repo(account syntax.DID) store.Repo {
	r.t.Helper()
	repos, err := r.writer.LoadRepos(r.t.Context(), []syntax.DID{account})
	require.NoError(r.t, err)
	require.Contains(r.t, repos, account)
	return repos[account]
}

func (r *rig) letters() []store.DeadLetter {
	r.t.Helper()
	letters, err := store.NewDeadLetters(r.db.Pool).List(r.t.Context(), store.LetterFilter{}, 0, 1000)
	require.NoError(r.t, err)
	return letters
}

// rkeys lists the record keys of an account that are indexed, sorted.
func (r *rig) rkeys(account syntax.DID) []string {
	var out []string
	for key := range maps.Keys(r.indexed()) {
		if key.DID == account {
			out = append(out, string(key.Rkey))
		}
	}
	slices.Sort(out)
	return out
}

func rkey(i int) syntax.RecordKey { return syntax.RecordKey(fmt.Sprintf("r%04d", i)) }

func (r *rig) value(key record.Key) (value json.RawMessage) {
	r.t.Helper()
	err := r.db.Pool.QueryRow(r.t.Context(), "SELECT value FROM records WHERE collection = $1 AND did = $2 AND rkey = $3",
		key.Collection, key.DID, key.Rkey).Scan(&value)
	require.NoError(r.t, err)
	return value
}

var discard = slog.New(slog.DiscardHandler)

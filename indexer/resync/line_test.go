package resync_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer"
	"github.com/layers-pub/layers-appview/indexer/firehose"
	"github.com/layers-pub/layers-appview/indexer/resync"
	"github.com/layers-pub/layers-appview/indexer/verify"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/directory"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

const corpora = syntax.NSID("pub.layers.corpus.corpus")

func corpus(name string) map[string]any {
	return map[string]any{"$type": string(corpora), "name": name, "createdAt": "2025-05-01T00:00:00.000Z"}
}

// follow runs the real line, with resync, on a world until the test ends.
func follow(t *testing.T, world *simulate.World) *storetest.Database {
	t.Helper()
	server := simulate.NewServer(world, simulate.ServerConfig{})
	require.NoError(t, server.Start("127.0.0.1:0"))
	db := storetest.New(t)
	logger := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	c, err := catalog.Load()
	require.NoError(t, err)
	identities := directory.New(directory.Config{PLCURL: server.URL(), AllowPrivate: true, PDSHosts: []string{server.URL()}})
	verifier, writer, transport := verify.New(identities), store.NewWriter(db.Pool, nil, logger), directory.Transport(true)
	ix := indexer.New(indexer.Config{
		Firehose: firehose.New(firehose.Config{Hosts: []string{server.RelayURL()}, Logger: logger, MinBackoff: 10 * time.Millisecond}, nil),
		Verifier: verifier, Catalog: c, Writer: writer, VerifiedHandle: identities.VerifiedHandle, Logger: logger,
		CursorEvery: 20 * time.Millisecond,
		Resync: resync.New(resync.Config{
			Queue: store.NewResyncs(db.Pool), Contents: writer, Catalog: c, Follow: c.Followed(), Verifier: verifier, Identities: identities,
			Relays: []string{server.URL()}, Network: transport, Operator: transport, Logger: logger, Dir: t.TempDir(),
			PollEvery: 20 * time.Millisecond, FirstWait: 50 * time.Millisecond, HostRate: 1000,
		}),
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- ix.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
		transport.CloseIdleConnections()
		_ = server.Stop()
		_ = world.Close()
	})
	return db
}

func indexed(t *testing.T, db *storetest.Database) map[record.Key]syntax.CID {
	rows, err := db.Pool.Query(t.Context(), "SELECT did, collection, rkey, cid FROM records")
	require.NoError(t, err)
	defer rows.Close()
	out := map[record.Key]syntax.CID{}
	for rows.Next() {
		var key record.Key
		var c syntax.CID
		require.NoError(t, rows.Scan(&key.DID, &key.Collection, &key.Rkey, &c))
		out[key] = c
	}
	require.NoError(t, rows.Err())
	return out
}

// settles waits until the index is equal to the world, and nothing waits to be fetched.
func settles(t *testing.T, world *simulate.World, db *storetest.Database) {
	t.Helper()
	truth := map[record.Key]syntax.CID{}
	for e := range world.Records(simulate.View{Inactive: true}) {
		truth[e.Key] = e.CID
	}
	require.Eventually(t, func() bool {
		p, err := store.NewResyncs(db.Pool).Progress(t.Context())
		return err == nil && p.Waiting == 0 && maps.Equal(truth, indexed(t, db))
	}, 60*time.Second, 20*time.Millisecond, "the index does not settle")
}

// TestTheLineAndItsFetchesEndEqual has the real line meet repositories in the middle
// of their history, lose commits, and see accounts go, while commits keep coming.
func TestTheLineAndItsFetchesEndEqual(t *testing.T) {
	t.Parallel()
	world, err := simulate.NewWorld(simulate.Config{Seed: 3, Window: 100})
	require.NoError(t, err)
	var dids []syntax.DID
	commit := func(did syntax.DID, fault simulate.Fault, writes ...simulate.Write) {
		_, err := world.CommitFaulty(did, fault, writes...)
		require.NoError(t, err)
	}
	for i := range 6 {
		did, err := world.CreateAccount(fmt.Sprintf("account-%d", i))
		require.NoError(t, err)
		dids = append(dids, did)
		for j := range 40 {
			commit(did, simulate.NoFault, simulate.Create(corpora, syntax.RecordKey(fmt.Sprintf("r%03d", j)), corpus(fmt.Sprint(i, j))))
		}
	}
	db := follow(t, world)
	round := func(n int, faults ...simulate.Fault) {
		for i, did := range dids {
			name := fmt.Sprintf("n%d", n)
			commit(did, simulate.NoFault, simulate.Create(corpora, syntax.RecordKey(name), corpus(name)))
			for k, fault := range faults {
				commit(did, fault, simulate.Update(corpora, syntax.RecordKey(fmt.Sprintf("r%03d", 2*k)), corpus(fmt.Sprint("changed", n, i))),
					simulate.Delete(corpora, syntax.RecordKey(fmt.Sprintf("r%03d", 20*n+2*k+1))))
			}
			commit(did, simulate.NoFault, simulate.Create(corpora, syntax.RecordKey(name+"b"), corpus(name)))
		}
	}
	require.Eventually(t, func() bool { return connected(t, db) }, 60*time.Second, 20*time.Millisecond)
	round(0)
	settles(t, world, db)
	round(1, simulate.Dropped, simulate.WrongPrevData)
	settles(t, world, db)
	require.NoError(t, world.SetStatus(dids[0], simulate.Deleted))
	require.Eventually(t, func() bool {
		for key := range indexed(t, db) {
			if key.DID == dids[0] {
				return false
			}
		}
		return true
	}, 60*time.Second, 20*time.Millisecond, "the deleted account's records stay")
	settles(t, world, db)
	var fetches int
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM repos WHERE complete AND sync = 'synchronized'").Scan(&fetches))
	require.GreaterOrEqual(t, fetches, 5)
}

// connected tells whether the line has taken something from the stream.
func connected(t *testing.T, db *storetest.Database) bool {
	var n int
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM cursor").Scan(&n))
	return n > 0
}

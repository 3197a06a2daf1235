package relations_test

import (
	"context"
	"errors"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/relations"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
	"github.com/layers-pub/layers-appview/internal/traversal"
	"github.com/layers-pub/layers-appview/internal/traversal/traversaltest"
)

func TestTraversals(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	kept := relations.New(db.Pool)
	traversaltest.Run(t, traversaltest.Store{
		Graph: traversal.New(kept),
		Write: func(ctx context.Context, subgraphs []graph.Subgraph) error {
			return kept.Replace(ctx, records(subgraphs))
		},
		Hide: db.Hide,
	})
}

func records(subgraphs []graph.Subgraph) (out []relations.Record) {
	for _, s := range subgraphs {
		out = append(out, relations.Record{
			Key: s.Key, Version: s.Version, Deleted: s.Deleted, Label: traversal.Label(s.Properties), Edges: s.Stated(),
		})
	}
	return out
}

var (
	alice = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	ctx   = context.Background()
)

func key(did syntax.DID, rkey string) record.Key {
	return record.Key{DID: did, Collection: "pub.layers.graph.graphNode", Rkey: syntax.RecordKey(rkey)}
}

// refers is a record with one reference.
func refers(from, to record.Key, version int64) relations.Record {
	return relations.Record{Key: from, Version: version, Label: "a \x00 b", Edges: []traversal.Edge{
		{Type: traversal.References, From: traversal.OfRecord(from), To: traversal.OfRecord(to), Properties: map[string]any{"path": "a\x00b"}},
		{Type: traversal.KnowledgeRef, From: traversal.OfRecord(from), To: traversal.OfKnowledge("wiki\x00data", "Q\x001")},
	}}
}

func rows(t *testing.T, db *storetest.Database) (kept, edges int) {
	t.Helper()
	require.NoError(t, db.Pool.QueryRow(ctx, "SELECT (SELECT count(*) FROM relation_records), (SELECT count(*) FROM relations)").Scan(&kept, &edges))
	return kept, edges
}

// A worker may come late with a record of an account that is gone.
func TestNothingStaysOfADeletedAccount(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := relations.New(db.Pool)
	require.NoError(t, s.Replace(ctx, []relations.Record{refers(key(alice, "a"), key(alice, "b"), 1), refers(key(alice, "b"), key(alice, "a"), 1)}))
	require.NoError(t, s.Replace(ctx, []relations.Record{{Key: key(alice, "b"), Version: 2, Deleted: true}}))
	kept, edges := rows(t, db)
	require.Equal(t, []int{2, 2}, []int{kept, edges}, "a deletion leaves its version")

	w := db.Writer(t, store.Routes{})
	active, status := false, store.StatusDeleted
	require.NoError(t, w.Apply(ctx, store.Batch{Host: "test", Repos: []store.RepoUpdate{{DID: alice, Active: &active, Status: &status}}, Purge: []syntax.DID{alice}}))
	require.NoError(t, s.Replace(ctx, []relations.Record{refers(key(alice, "a"), key(alice, "b"), 3)}))
	kept, edges = rows(t, db)
	require.Equal(t, []int{0, 0}, []int{kept, edges})
}

func TestScanGivesWhatIsThere(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := relations.New(db.Pool)
	require.NoError(t, s.Ping(ctx))
	require.NoError(t, s.Replace(ctx, nil))
	var all []relations.Record
	for _, rkey := range []string{"c", "a", "b", "gone"} {
		all = append(all, refers(key(alice, rkey), key(alice, "a"), 7))
	}
	require.NoError(t, s.Replace(ctx, all))
	require.NoError(t, s.Replace(ctx, []relations.Record{{Key: key(alice, "gone"), Version: 8, Deleted: true}, refers(key(alice, "c"), key(alice, "a"), 6)}))
	var found []relations.State
	for after := (record.Key{}); ; {
		page, err := s.Scan(ctx, after, 2)
		require.NoError(t, err)
		found = append(found, page...)
		if len(page) < 2 {
			break
		}
		after = page[1].Key
	}
	require.Equal(t, []relations.State{{Key: key(alice, "a"), Version: 7}, {Key: key(alice, "b"), Version: 7}, {Key: key(alice, "c"), Version: 7}}, found)
	require.NoError(t, s.Clear(ctx))
	kept, edges := rows(t, db)
	require.Equal(t, []int{0, 0}, []int{kept, edges})
}

func TestWhatPostgreSQLRefusesIsSaid(t *testing.T) {
	t.Parallel()
	s := relations.New(storetest.New(t).Pool)
	bad := refers(key(alice, "a"), key(alice, "b"), 1)
	bad.Edges[0].To = traversal.Of("https://example.org/\xff")
	require.ErrorIs(t, s.Replace(ctx, []relations.Record{bad}), store.ErrRejected)
	over, cancel := context.WithCancel(ctx)
	cancel()
	err := s.Replace(over, []relations.Record{refers(key(alice, "a"), key(alice, "b"), 1)})
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, store.ErrRejected)
}

// Repositories that are written again, and what waited for a record, are no filling.
func TestAnswersSayThatTheGraphIsBeingFilled(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := relations.New(db.Pool)
	require.NoError(t, s.Replace(ctx, []relations.Record{refers(key(alice, "a"), key(alice, "b"), 1)}))
	a, b := traversal.OfRecord(key(alice, "a")), traversal.OfRecord(key(alice, "b"))
	g := traversal.NewWithFallback(&away{}, s)
	for sweep, want := range map[string]bool{
		"'relations', $1, '', ''":   true,
		"'relations', $1, 'd', ''":  false,
		"'relations', $1, '', 'at'": false,
		"'fulltext', $1, '', ''":    false,
	} {
		_, err := db.Pool.Exec(ctx, "DELETE FROM sweeps")
		require.NoError(t, err)
		_, err = db.Pool.Exec(ctx, "INSERT INTO sweeps (version, target, collection, did, referent) VALUES (1, "+sweep+")", key(alice, "a").Collection)
		require.NoError(t, err)
		caveats := traversal.Caveats{Degraded: true, Incomplete: want}
		list, err := g.Neighbors(ctx, a, traversal.Filter{}, traversal.Page{})
		require.NoError(t, err)
		require.Equal(t, caveats, list.Caveats, sweep)
		part, err := g.Neighborhood(ctx, a, traversal.Filter{}, traversal.Reach{})
		require.NoError(t, err)
		require.Equal(t, caveats, part.Caveats, sweep)
		path, err := g.Path(ctx, a, b, traversal.Filter{}, 0)
		require.NoError(t, err)
		require.Equal(t, caveats, path.Caveats, sweep)
		grounded, err := g.Grounded(ctx, "", "Q1", traversal.Page{})
		require.NoError(t, err)
		require.Equal(t, caveats, grounded.Caveats, sweep)
	}
}

// away is a store that does not answer.
type away struct{ asked int }

func (a *away) Begin(context.Context) (traversal.View, error) {
	a.asked++
	return nil, errors.New("connection refused")
}

func TestTheFallbackAnswersAndSaysSo(t *testing.T) {
	t.Parallel()
	s := relations.New(storetest.New(t).Pool)
	require.NoError(t, s.Replace(ctx, []relations.Record{refers(key(alice, "a"), key(alice, "b"), 1), refers(key(alice, "b"), key(alice, "a"), 1)}))
	a, b := traversal.OfRecord(key(alice, "a")), traversal.OfRecord(key(alice, "b"))

	down := &away{}
	g := traversal.NewWithFallback(down, s)
	for range 3 {
		found, err := g.Neighbors(ctx, a, traversal.Filter{}, traversal.Page{})
		require.NoError(t, err)
		require.True(t, found.Degraded)
		require.Len(t, found.Neighbors, 3)
	}
	path, err := g.Path(ctx, a, b, traversal.Filter{}, 0)
	require.NoError(t, err)
	require.True(t, path.Degraded && path.Found)
	require.NotZero(t, down.asked)

	_, err = traversal.New(down).Neighbors(ctx, a, traversal.Filter{}, traversal.Page{})
	require.ErrorContains(t, err, "connection refused")
	found, err := traversal.NewWithFallback(s, down).Neighbors(ctx, a, traversal.Filter{}, traversal.Page{})
	require.NoError(t, err)
	require.False(t, found.Degraded)
}

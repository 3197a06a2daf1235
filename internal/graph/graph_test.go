package graph_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/graph/graphtest"
	"github.com/layers-pub/layers-appview/internal/record"
)

func key(rkey string) record.Key {
	return record.Key{DID: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", Collection: "pub.layers.graph.graphNode", Rkey: syntax.RecordKey(rkey)}
}

func node(rkey string) graph.Node { return graph.Record(key(rkey)) }

func reference(from, to string) graph.Edge {
	return graph.Edge{Type: graph.References, From: node(from), To: node(to), Properties: map[string]any{}}
}

func subgraph(rkey string, version int64, edges ...graph.Edge) graph.Subgraph {
	return graph.Subgraph{Key: key(rkey), Version: version, Edges: edges}
}

func deletion(rkey string, version int64) graph.Subgraph {
	return graph.Subgraph{Key: key(rkey), Version: version, Deleted: true}
}

func write(t *testing.T, client *graph.Client, subgraphs ...graph.Subgraph) {
	t.Helper()
	require.NoError(t, client.Write(t.Context(), subgraphs))
}

func get(t *testing.T, client *graph.Client, rkey string) graph.Stored {
	t.Helper()
	stored, err := client.Get(t.Context(), key(rkey))
	require.NoError(t, err)
	return stored
}

func edges(t *testing.T, client *graph.Client, rkey string) []graph.Edge {
	t.Helper()
	var out []graph.Edge
	for _, e := range get(t, client, rkey).Edges {
		out = append(out, e.Edge)
	}
	return out
}

func scan(t *testing.T, client *graph.Client) map[string]int64 {
	t.Helper()
	found := map[string]int64{}
	require.NoError(t, client.Scan(t.Context(), func(k record.Key, version int64) error {
		_, twice := found[k.String()]
		require.False(t, twice, "%s scanned twice", k)
		found[k.String()] = version
		return nil
	}))
	return found
}

func failures(t *testing.T, err error) []record.Unwritten {
	t.Helper()
	var failed *record.WriteError
	require.ErrorAs(t, err, &failed)
	return failed.Failures
}

func TestRecordIsReplacedWhole(t *testing.T) {
	t.Parallel()
	client := graphtest.New(t)
	first := graph.Subgraph{
		Key: key("a"), Version: 1, Labels: []string{"GraphNode", "Concept"},
		Properties: map[string]any{"label": "dog", "count": int64(3), "share": 0.5, "open": true, "languages": []string{"en", "yo"}, "none": nil},
		Edges: []graph.Edge{
			{Type: graph.KnowledgeRef, From: node("a"), To: graph.Knowledge("wikidata", "Q144"), Properties: map[string]any{"path": "knowledgeRefs[]"}},
			{Type: graph.References, From: node("a"), To: graph.External("https://example.org/"), Properties: map[string]any{}},
			reference("a", "b"),
			{Type: graph.GraphEdge, From: node("c"), To: node("b"), Properties: map[string]any{"edge_type": "is-a", "confidence": int64(900)}},
		},
	}
	write(t, client, first)
	stored := get(t, client, "a")
	require.EqualValues(t, 1, stored.Version)
	require.False(t, stored.Dangling)
	require.ElementsMatch(t, first.Labels, stored.Labels)
	require.Equal(t, map[string]any{"label": "dog", "count": int64(3), "share": 0.5, "open": true, "languages": []any{"en", "yo"}}, stored.Properties)
	require.ElementsMatch(t, first.Edges, edges(t, client, "a"))

	second := graph.Subgraph{
		Key: key("a"), Version: 2, Labels: []string{"Concept", "Entity"}, Properties: map[string]any{"label": "cat"},
		Edges: []graph.Edge{reference("a", "d")},
	}
	write(t, client, second)
	stored = get(t, client, "a")
	require.ElementsMatch(t, second.Labels, stored.Labels)
	require.Equal(t, map[string]any{"label": "cat"}, stored.Properties)
	require.ElementsMatch(t, second.Edges, edges(t, client, "a"))

	second.Properties = map[string]any{"label": "cat, again"} // the same version with other content
	second.Edges = nil
	write(t, client, second)
	stored = get(t, client, "a")
	require.Equal(t, second.Properties, stored.Properties)
	require.Empty(t, stored.Edges)
}

// A record that is projected again with the same outcome costs no edges, however many it has.
func TestUnchangedRecordOnlyGetsItsVersion(t *testing.T) {
	t.Parallel()
	cfg := graphtest.Config(t)
	client := graphtest.Open(t, cfg)
	require.NoError(t, client.Ensure(t.Context()))
	write(t, client, layerOf("a", 1, 6000), deletion("b", 1))
	mark := func() int64 {
		return query(t, cfg, "MATCH (n:Record)-[e]->() WHERE n.key STARTS WITH $space SET e.mark = coalesce(e.mark, 0) + 1 RETURN sum(e.mark)")
	}
	require.EqualValues(t, 6000, mark())
	same := layerOf("a", 1, 6000)
	same.Version = 2
	write(t, client, same, deletion("b", 2))
	require.EqualValues(t, 12_000, mark(), "the edges are the same ones")
	require.EqualValues(t, 2, get(t, client, "a").Version)
	require.EqualValues(t, 2, get(t, client, "b").Version)
	write(t, client, layerOf("a", 1, 3), subgraph("b", 1)) // stale
	require.EqualValues(t, 18_000, mark())
	require.True(t, get(t, client, "b").Dangling)
}

func TestDanglingReferences(t *testing.T) {
	t.Parallel()
	client := graphtest.New(t)
	write(t, client, subgraph("a", 1, reference("a", "b")))
	require.True(t, get(t, client, "a").Edges[0].Dangling)
	target := get(t, client, "b")
	require.True(t, target.Dangling)
	require.Zero(t, target.Version)
	require.Equal(t, map[string]int64{key("a").String(): 1}, scan(t, client))

	write(t, client, subgraph("b", 2))
	require.False(t, get(t, client, "a").Edges[0].Dangling)

	write(t, client, deletion("b", 3))
	require.True(t, get(t, client, "a").Edges[0].Dangling, "the edges of others stay")
	require.Equal(t, map[string]int64{key("a").String(): 1}, scan(t, client))

	write(t, client, subgraph("b", 4))
	require.False(t, get(t, client, "a").Edges[0].Dangling)
	require.Len(t, scan(t, client), 2)

	_, err := client.Get(t.Context(), key("never"))
	require.ErrorIs(t, err, graph.ErrNotFound)
}

func TestDeletionLeavesATombstone(t *testing.T) {
	t.Parallel()
	client := graphtest.New(t)
	full := graph.Subgraph{
		Key: key("a"), Version: 5, Labels: []string{"Concept"}, Properties: map[string]any{"label": "dog"},
		Edges: []graph.Edge{reference("a", "b"), {Type: graph.MemberOf, From: node("b"), To: node("c"), Properties: map[string]any{}}},
	}
	write(t, client, full)
	write(t, client, deletion("a", 6))
	want := graph.Stored{Version: 6, Dangling: true, Properties: map[string]any{}}
	require.Equal(t, want, get(t, client, "a"))
	require.Empty(t, scan(t, client))

	write(t, client, full, subgraph("a", 1)) // stale
	require.Equal(t, want, get(t, client, "a"))
	write(t, client, deletion("a", 6)) // again
	require.Equal(t, want, get(t, client, "a"))

	full.Version = 6 // shown again, as after an account is reactivated
	write(t, client, full)
	require.Len(t, get(t, client, "a").Edges, 2)
	write(t, client, deletion("a", 5)) // stale deletion
	require.False(t, get(t, client, "a").Dangling)

	write(t, client, deletion("unknown", 1))
	write(t, client, subgraph("unknown", 1))
	require.False(t, get(t, client, "unknown").Dangling)
}

func TestWhatIsForgottenLeavesNothingButOthersEdges(t *testing.T) {
	t.Parallel()
	client := graphtest.New(t)
	write(t, client, subgraph("alone", 5), subgraph("stays", 5), subgraph("named", 5),
		graph.Subgraph{Key: key("other"), Version: 5, Edges: []graph.Edge{reference("other", "named")}})
	gone := []graph.Subgraph{deletion("alone", 6), deletion("named", 6), deletion("never", 6)}
	write(t, client, gone...)
	require.NoError(t, client.Forget(t.Context(), append(gone, deletion("stays", 6))))
	for _, name := range []string{"alone", "never"} {
		_, err := client.Get(t.Context(), key(name))
		require.ErrorIs(t, err, graph.ErrNotFound, name)
	}
	require.False(t, get(t, client, "stays").Dangling, "it was not deleted")
	require.True(t, get(t, client, "named").Dangling)
	require.Len(t, get(t, client, "other").Edges, 1)
	require.NoError(t, client.Forget(t.Context(), gone), "again")
	write(t, client, subgraph("alone", 1))
	require.False(t, get(t, client, "alone").Dangling, "its version is forgotten, too")
}

func TestRepeatedAndShuffledWritesEndAtTheHighestVersion(t *testing.T) {
	t.Parallel()
	client := graphtest.New(t)
	random := rand.New(rand.NewPCG(3, 4))
	final := map[string]graph.Subgraph{}
	var writes []graph.Subgraph
	name := func() string { return fmt.Sprint("r", random.IntN(25)) }
	for k := range 25 {
		for version := int64(1); version <= 5; version++ {
			s := subgraph(fmt.Sprint("r", k), version)
			s.Labels = []string{string(rune('A' + random.IntN(4)))}
			s.Properties = map[string]any{"at": version}
			for range random.IntN(4) {
				s.Edges = append(s.Edges, reference(string(s.Key.Rkey), name()), graph.Edge{
					Type: graph.GraphEdge, From: node(name()), To: node(name()), Properties: map[string]any{"at": version},
				})
			}
			if random.IntN(4) == 0 {
				s = deletion(string(s.Key.Rkey), version)
			}
			writes = append(writes, s, s)
			final[string(s.Key.Rkey)] = s
		}
	}
	random.Shuffle(len(writes), func(i, j int) { writes[i], writes[j] = writes[j], writes[i] })
	for len(writes) > 0 {
		n := min(len(writes), 1+random.IntN(30))
		write(t, client, writes[:n]...)
		writes = writes[n:]
	}
	requireStored(t, client, final)
}

// requireStored compares the whole graph with the subgraphs that it should hold.
func requireStored(t *testing.T, client *graph.Client, want map[string]graph.Subgraph) {
	t.Helper()
	live := map[string]int64{}
	for rkey, s := range want {
		stored := get(t, client, rkey)
		require.Equal(t, s.Version, stored.Version, rkey)
		require.Equal(t, s.Deleted, stored.Dangling, rkey)
		require.ElementsMatch(t, s.Labels, stored.Labels, rkey)
		require.ElementsMatch(t, s.Edges, edges(t, client, rkey), rkey)
		if !s.Deleted {
			live[s.Key.String()] = s.Version
		}
	}
	require.Equal(t, live, scan(t, client))
}

// Writers in several processes, with the same records and targets in different
// orders, disturb each other without harm.
func TestConcurrentWriters(t *testing.T) {
	t.Parallel()
	cfg := graphtest.Config(t)
	const writers, records, versions = 4, 30, 6
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		client := graphtest.Open(t, cfg)
		random := rand.New(rand.NewPCG(5, uint64(w)))
		wg.Go(func() {
			if errs[w] = client.Ensure(t.Context()); errs[w] != nil {
				return
			}
			var all []graph.Subgraph
			for k := range records {
				for version := range versions {
					all = append(all, concurrent(k, int64(version+1)))
				}
			}
			random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			for part := range slices.Chunk(all, 20) {
				if errs[w] = client.Write(t.Context(), part); errs[w] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	want := map[string]graph.Subgraph{}
	for k := range records {
		want[fmt.Sprint("r", k)] = concurrent(k, versions)
	}
	requireStored(t, graphtest.Open(t, cfg), want)
}

// concurrent is version of record k: edges to neighbours, to one shared node and
// between two others.
func concurrent(k int, version int64) graph.Subgraph {
	name := func(k int) string { return fmt.Sprint("r", k%30) }
	return subgraph(name(k), version,
		reference(name(k), name(k+int(version))), reference(name(k), name(k+29)), reference(name(k), "hub"),
		graph.Edge{Type: graph.GraphEdge, From: node(name(k + 3)), To: node("hub"), Properties: map[string]any{"version": version}},
		graph.Edge{Type: graph.KnowledgeRef, From: node(name(k)), To: graph.Knowledge("wikidata", "Q1"), Properties: map[string]any{}},
	)
}

func TestSameRecordTwiceInOneWrite(t *testing.T) {
	t.Parallel()
	client := graphtest.New(t)
	write(t, client, subgraph("a", 2, reference("a", "b")), subgraph("a", 1), subgraph("b", 1), deletion("b", 3), subgraph("b", 2))
	require.Len(t, get(t, client, "a").Edges, 1)
	require.True(t, get(t, client, "b").Dangling)
}

func TestScanPagesThroughEverything(t *testing.T) {
	t.Parallel()
	client := graphtest.New(t)
	want := map[string]int64{}
	var all []graph.Subgraph
	for i := range 11_000 { // more than two pages
		s := subgraph(fmt.Sprint("r", i), int64(i+1))
		all = append(all, s)
		want[s.Key.String()] = s.Version
	}
	write(t, client, all...)
	require.Equal(t, want, scan(t, client))
	stop := fmt.Errorf("stop")
	require.ErrorIs(t, client.Scan(t.Context(), func(record.Key, int64) error { return stop }), stop)
}

func TestSpacesAreApart(t *testing.T) {
	t.Parallel()
	one, two := graphtest.New(t), graphtest.New(t)
	write(t, one, subgraph("a", 1, reference("a", "b")))
	write(t, two, subgraph("a", 7))
	require.Equal(t, map[string]int64{key("a").String(): 7}, scan(t, two))
	_, err := two.Get(t.Context(), key("b"))
	require.ErrorIs(t, err, graph.ErrNotFound)
	require.NoError(t, one.Wipe(t.Context()))
	require.Empty(t, scan(t, one))
	require.Len(t, scan(t, two), 1)

	cfg := graphtest.Config(t)
	cfg.Space = ""
	require.NoError(t, graphtest.Open(t, cfg).Scan(t.Context(), func(k record.Key, _ int64) error {
		return fmt.Errorf("a client without a space sees %s of a test", k)
	}))
}

var hostile = []string{
	"", "\x00", "a\x00b", `"'` + "`" + `\`, "`}) DETACH DELETE n //", "line\nline\r", "\u202eabc\u202c", "\u2028", "\ufeff", "\U0010ffff", "$rows", "${x}",
	strings.Repeat("x", 1_000_000),
}

func TestHostileStrings(t *testing.T) {
	t.Parallel()
	client := graphtest.New(t)
	for i, text := range hostile {
		rkey := fmt.Sprint("r", i)
		name := "n" + strings.ReplaceAll(text[:min(len(text), 1000)], "\x00", "0") // names come from lexicons
		s := subgraph(rkey, 1, graph.Edge{
			Type: graph.KnowledgeRef, From: node(rkey), To: graph.Knowledge(text, text), Properties: map[string]any{name: text},
		}, graph.Edge{
			Type: graph.References, From: node(rkey), To: graph.External(text), Properties: map[string]any{"uri": text, "list": []string{text, text}},
		})
		s.Properties = map[string]any{"label": text, name: text}
		require.NoError(t, client.Write(t.Context(), []graph.Subgraph{s}), "%.40q", text)
		stored := get(t, client, rkey)
		require.Equal(t, s.Properties, stored.Properties)
		s.Edges[1].Properties["list"] = []any{text, text} // as the driver gives it back
		require.ElementsMatch(t, s.Edges, edges(t, client, rkey))
	}
}

func TestKnowledgeNodesDoNotRunTogether(t *testing.T) {
	t.Parallel()
	client := graphtest.New(t)
	pairs := [][2]string{{"a:b", "c"}, {"a", "b:c"}, {"a", `b","c`}, {`a","b`, "c"}, {"", "abc"}, {"abc", ""}}
	s := subgraph("a", 1)
	for _, p := range pairs {
		s.Edges = append(s.Edges, graph.Edge{Type: graph.KnowledgeRef, From: node("a"), To: graph.Knowledge(p[0], p[1]), Properties: map[string]any{}})
	}
	write(t, client, s)
	require.ElementsMatch(t, s.Edges, edges(t, client, "a"))
}

func TestLongNames(t *testing.T) {
	t.Parallel()
	client := graphtest.New(t)
	long := record.Key{DID: syntax.DID("did:web:" + strings.Repeat("a", 2040)), Collection: "pub.layers.graph.graphNode", Rkey: syntax.RecordKey(strings.Repeat("~", 512))}
	other := long
	other.Rkey = "x"
	s := graph.Subgraph{Key: long, Version: 1, Edges: []graph.Edge{{Type: graph.References, From: graph.Record(long), To: graph.Record(other), Properties: map[string]any{}}}}
	write(t, client, s)
	require.Equal(t, map[string]int64{long.String(): 1}, scan(t, client))
	stored, err := client.Get(t.Context(), long)
	require.NoError(t, err)
	require.Equal(t, s.Edges[0], stored.Edges[0].Edge)
}

func TestOwnPropertyNamesAreKeptApart(t *testing.T) {
	t.Parallel()
	client := graphtest.New(t)
	s := subgraph("a", 1, graph.Edge{Type: graph.References, From: node("b"), To: node("c"), Properties: map[string]any{"_owner": "x", "uri": "y"}})
	s.Properties = map[string]any{"key": "k", "uri": "u", "did": "d", "version": "1.2", "_version": int64(99)}
	write(t, client, s)
	stored := get(t, client, "a")
	require.EqualValues(t, 1, stored.Version)
	require.Equal(t, map[string]any{"key_": "k", "uri_": "u", "did_": "d", "version": "1.2"}, stored.Properties)
	require.Equal(t, map[string]any{"uri": "y"}, stored.Edges[0].Properties)
}

func TestRefusedSubgraphIsPermanentAndAlone(t *testing.T) {
	t.Parallel()
	client := graphtest.New(t)
	with := func(rkey string, change func(*graph.Subgraph)) graph.Subgraph {
		s := subgraph(rkey, 1)
		change(&s)
		return s
	}
	edge := func(e graph.Edge) func(*graph.Subgraph) {
		return func(s *graph.Subgraph) { s.Edges = []graph.Edge{e} }
	}
	bad := []graph.Subgraph{
		with("label", func(s *graph.Subgraph) { s.Labels = []string{"Concept`) DETACH DELETE n //"} }),
		with("kind", func(s *graph.Subgraph) { s.Labels = []string{"Knowledge"} }),
		with("value", func(s *graph.Subgraph) { s.Properties = map[string]any{"a": map[string]any{}} }),
		with("name", func(s *graph.Subgraph) { s.Properties = map[string]any{"": 1} }),
		with("nul", func(s *graph.Subgraph) { s.Properties = map[string]any{"a\x00": 1} }),
		with("type", edge(graph.Edge{Type: "KNOWS", From: node("a"), To: node("b")})),
		with("injected", edge(graph.Edge{Type: "X]->() DETACH DELETE n //", From: node("a"), To: node("b")})),
		with("end", edge(graph.Edge{Type: graph.References, From: node("a")})),
		with("edge", edge(graph.Edge{Type: graph.References, From: node("a"), To: node("b"), Properties: map[string]any{"a": []any{1}}})),
	}
	got := failures(t, client.Write(t.Context(), append([]graph.Subgraph{subgraph("good", 1)}, append(bad, subgraph("well", 1))...)))
	require.Len(t, got, len(bad))
	for _, f := range got {
		require.False(t, f.Retryable, "%v", f.Err)
	}
	require.Equal(t, map[string]int64{key("good").String(): 1, key("well").String(): 1}, scan(t, client))
}

func TestReferred(t *testing.T) {
	t.Parallel()
	require.Equal(t, node("a"), graph.Referred(key("a").URI()))
	for _, uri := range []syntax.ATURI{"at://alice.example.com/a.b.c/x", "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/a.b.c", "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz"} {
		require.Equal(t, graph.External(string(uri)), graph.Referred(uri))
	}
}

func TestWriteOfNothing(t *testing.T) {
	t.Parallel()
	require.NoError(t, graphtest.New(t).Write(context.Background(), nil))
}

package project

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/graph"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/search"
)

// TestTargetsAreTheDesigns holds the rule to the design's table of which
// collections are searched.
func TestTargetsAreTheDesigns(t *testing.T) {
	searched := map[syntax.NSID]bool{}
	for _, name := range []string{
		"expression.expression", "annotation.annotationLayer", "ontology.ontology", "ontology.typeDef", "corpus.corpus",
		"resource.entry", "resource.collection", "judgment.experimentDef", "graph.graphNode", "persona.persona",
		"media.media", "eprint.eprint", "changelog.entry",
	} {
		searched[syntax.NSID("pub.layers."+name)] = true
	}
	for _, c := range loadCatalog(t).Collections() {
		want := []record.Target{record.Graph}
		if searched[c.NSID] {
			want = append(want, record.Search)
		}
		if c.NSID == "pub.layers.annotation.annotationLayer" {
			want = append(want, record.Tables)
		}
		require.Equal(t, want, Targets(c), c.NSID)
		_, mapped := Mapping(c)
		require.Equal(t, searched[c.NSID], mapped, c.NSID)
	}
}

// TestEveryReferenceIsAnEdge compares the REFERENCES edges of many records with
// what the catalog finds in their blocks.
func TestEveryReferenceIsAnEdge(t *testing.T) {
	cat := loadCatalog(t)
	for _, c := range cat.Collections() {
		maker := fixture.New(uint64(len(c.NSID)))
		values := []map[string]any{fixture.Full(c.NSID), fixture.Minimal(c.NSID)}
		for range 50 {
			values = append(values, maker.Record(c.NSID))
		}
		for _, value := range values {
			rec, refs := recordOf(t, cat, c.NSID, value)
			sub, err := Subgraph(c, rec)
			require.NoError(t, err)
			requireReferences(t, refs, sub)
		}
	}
}

func requireReferences(t *testing.T, refs []record.Ref, sub graph.Subgraph) {
	t.Helper()
	want, got := []graph.Edge{}, []graph.Edge{}
	for _, r := range refs {
		want = append(want, graph.Edge{
			Type: graph.References, From: graph.Record(sub.Key), To: graph.Referred(r.Target),
			Properties: map[string]any{"path": r.Path},
		})
	}
	for _, e := range sub.Edges {
		if e.Type == graph.References {
			got = append(got, e)
		}
	}
	require.ElementsMatch(t, want, got)
}

// TestForeignRecordsAreLinked gives a collection without lexicon its edges.
func TestForeignRecordsAreLinked(t *testing.T) {
	cat := loadCatalog(t)
	require.NoError(t, cat.Follow("app.example.note"))
	c, ok := cat.Collection("app.example.note")
	require.True(t, ok)
	require.Equal(t, []record.Target{record.Graph}, Targets(c))
	value := map[string]any{
		"$type": "app.example.note", "text": "at://not a uri", "n": int64(3),
		"about": []any{map[string]any{"uri": "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/pub.layers.corpus.corpus/abc"}},
	}
	rec, refs := recordOf(t, cat, c.NSID, value)
	require.Len(t, refs, 1)
	sub, err := Subgraph(c, rec)
	require.NoError(t, err)
	requireReferences(t, refs, sub)
	require.Empty(t, sub.Labels)
}

// TestLimitsAreProjected takes records that go as far as their lexicon allows.
func TestLimitsAreProjected(t *testing.T) {
	cat := loadCatalog(t)
	for _, c := range cat.Collections() {
		for _, limit := range fixture.Limits(c.NSID) {
			rec, _ := recordOf(t, cat, c.NSID, limit.Value)
			requireBounded(t, c, rec)
		}
	}
}

// requireBounded projects a record and holds the results to the stores' limits.
func requireBounded(t *testing.T, c *catalog.Collection, rec record.Record) {
	t.Helper()
	p := project(t, c, rec)
	size := len(rec.Value) + 10_000
	if doc, ok := p.Document.(search.Document); ok {
		require.True(t, json.Valid(doc.Body))
		require.LessOrEqual(t, len(doc.Body), 3*size)
		mapping, _ := Mapping(c)
		var body map[string]any
		require.NoError(t, json.Unmarshal(doc.Body, &body))
		requireFits(t, string(c.NSID), mapping.Properties, body)
	}
	sub := p.Subgraph.(graph.Subgraph)
	for name, v := range sub.Properties {
		requireProperty(t, name, v)
	}
	for _, label := range sub.Labels {
		require.Regexp(t, `^[A-Z][A-Za-z0-9]{0,63}$`, label)
	}
	bytes := 0
	for _, e := range sub.Edges {
		bytes += len(e.From.URI) + len(e.To.URI) + len(e.To.Identifier)
		for name, v := range e.Properties {
			requireProperty(t, name, v)
			bytes += len(fmt.Sprint(v))
		}
	}
	require.LessOrEqual(t, bytes, 10*size)
}

func requireProperty(t *testing.T, name string, v any) {
	t.Helper()
	switch v := v.(type) {
	case string:
		require.LessOrEqual(t, len(v), maxProperty, name)
	case []string:
		require.LessOrEqual(t, len(v), maxElements, name)
	case bool, int64:
	default:
		require.Failf(t, "not a property", "%s is a %T", name, v)
	}
}

// requireFits holds a document to its mapping: a field for every member, and no
// keyword without a limit that Lucene takes.
func requireFits(t *testing.T, path string, fields map[string]any, body map[string]any) {
	t.Helper()
	for name, v := range body {
		field, ok := fields[name].(map[string]any)
		require.Truef(t, ok, "%s.%s is not mapped", path, name)
		if inner, ok := field["properties"].(map[string]any); ok {
			for _, v := range flatten(v) {
				m, ok := v.(map[string]any)
				require.Truef(t, ok, "%s.%s is a %T", path, name, v)
				requireFits(t, path+"."+name, inner, m)
			}
			continue
		}
		for _, v := range flatten(v) {
			requireLeaf(t, path+"."+name, field, v)
		}
	}
}

func flatten(v any) []any {
	list, ok := v.([]any)
	if !ok {
		return []any{v}
	}
	var out []any
	for _, v := range list {
		out = append(out, flatten(v)...)
	}
	return out
}

func requireLeaf(t *testing.T, path string, field map[string]any, v any) {
	t.Helper()
	switch field["type"] {
	case "keyword":
		require.IsType(t, "", v, path)
		if field["index"] != false {
			require.LessOrEqual(t, len(v.(string)), maxLabel, path)
		}
	case "text", "date":
		require.IsType(t, "", v, path)
	case "long":
		require.IsType(t, 0.0, v, path)
	case "boolean":
		require.IsType(t, true, v, path)
	case "object":
		require.Equal(t, false, field["enabled"], path)
	default:
		require.Failf(t, "unexpected field", "%s: %v", path, field)
	}
}

// TestLargestLayers are about 1 MB: as many annotations as fit, and one with
// everything in it, over and over.
func TestLargestLayers(t *testing.T) {
	cat := loadCatalog(t)
	const nsid = "pub.layers.annotation.annotationLayer"
	c, _ := cat.Collection(nsid)
	full := fixture.Full(nsid)["annotations"].([]any)[0]
	for name, annotation := range map[string]func(i int) any{
		"smallest": func(i int) any { return map[string]any{"uuid": map[string]any{"value": fmt.Sprint(i)}} },
		"fullest":  func(int) any { return full },
	} {
		var list []any
		count := map[string]int{"smallest": 50_000, "fullest": 200}[name]
		for i := range count {
			list = append(list, annotation(i))
		}
		value := fixture.Minimal(nsid)
		value["annotations"] = list
		rec, _ := recordOf(t, cat, nsid, value)
		require.Greater(t, len(rec.Value), 700_000, name)
		requireBounded(t, c, rec)
	}
}

// TestHostileValues projects values that no lexicon allows, as a changed lexicon
// could bring about: whatever comes out, nothing panics.
func TestHostileValues(t *testing.T) {
	cat := loadCatalog(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range cat.Collections() {
		rec, _ := recordOf(t, cat, c.NSID, fixture.Full(c.NSID))
		for range 200 {
			var value any
			require.NoError(t, json.Unmarshal(rec.Value, &value))
			hostile := rec
			hostile.Value, _ = json.Marshal(scramble(rng, value))
			_, _ = Document(c, hostile)
			_, _ = Subgraph(c, hostile)
			_, _ = Annotations(c, hostile)
		}
	}
	for _, raw := range []string{"", "null", "[]", `"x"`, "{", `{"annotations":null}`} {
		c, _ := cat.Collection("pub.layers.annotation.annotationLayer")
		rec := record.Record{Value: json.RawMessage(raw)}
		_, _ = Document(c, rec)
		_, _ = Subgraph(c, rec)
		_, _ = Annotations(c, rec)
	}
}

// scramble puts values of other types at random places.
func scramble(rng *rand.Rand, v any) any {
	if rng.IntN(25) == 0 {
		return []any{nil, true, "x\x00", 1e300, "at://", []any{[]any{}}, map[string]any{"$type": 1}, json.Number("9007199254740993")}[rng.IntN(8)]
	}
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = scramble(rng, v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = scramble(rng, v[name])
		}
	}
	return v
}

// TestANewRecordTypeNeedsNoCode loads a lexicon that this program has never seen.
func TestANewRecordTypeNeedsNoCode(t *testing.T) {
	cat, err := catalog.Load(os.DirFS("testdata/lexicons"))
	require.NoError(t, err)
	c, ok := cat.Collection("org.example.field.note")
	require.True(t, ok)
	require.Equal(t, []record.Target{record.Graph, record.Search}, Targets(c))
	const uri = "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/pub.layers.expression.expression/abc"
	knowledge := map[string]any{"source": "glottolog", "identifier": "yoru1245"}
	link := map[string]any{"recordRef": uri, "objectId": map[string]any{"value": "s1"}}
	rec, refs := recordOf(t, cat, c.NSID, map[string]any{
		"$type": "org.example.field.note", "title": "Tone in Ìjẹ̀bú", "body": strings.Repeat("ohùn ", 2000),
		"parentRef": uri, "elicited": "9999-12-31T23:59:59-12:00", "place": map[string]any{"knowledgeRef": knowledge},
		"remarks":  []any{map[string]any{"label": "H", "reply": map[string]any{"label": "L", "reply": map[string]any{"label": "M"}}}},
		"contrast": []any{map[string]any{"source": link, "target": map[string]any{"knowledgeRef": knowledge}, "edgeType": "minimal-pair"}},
	})
	requireBounded(t, c, rec)
	sub, err := Subgraph(c, rec)
	require.NoError(t, err)
	requireReferences(t, refs, sub)
	require.Equal(t, []string{"Note"}, sub.Labels)
	require.Contains(t, sub.Edges, graph.Edge{
		Type: graph.GraphEdge, From: graph.Referred(uri), To: graph.Knowledge("glottolog", "yoru1245"),
		Properties: map[string]any{"edge_type": "minimal-pair", "source_object": "s1"},
	})
	require.Contains(t, sub.Edges, graph.Edge{Type: graph.ParentOf, From: graph.Referred(uri), To: graph.Record(rec.Key)})

	doc, err := Document(c, rec)
	require.NoError(t, err)
	var body map[string]any
	require.NoError(t, json.Unmarshal(doc.Body, &body))
	require.Equal(t, "Tone in Ìjẹ̀bú", body["$title"])
	require.Equal(t, []any{"H"}, body["$labels"], "a definition inside itself is words alone")
	require.Subset(t, body["$text"], []any{
		map[string]any{"path": "remarks[0].reply.label", "text": "L"}, map[string]any{"path": "remarks[0].reply.reply.label", "text": "M"},
	})
	require.Subset(t, body["$words"], []any{"l", "m"})
	require.Equal(t, "9999-12-31T23:59:59.999Z", body["elicited"])
	require.Equal(t, []any{"glottolog:yoru1245"}, body["$knowledge"])
	mapping, _ := Mapping(c)
	require.Equal(t, "nested", mapping.Properties["remarks"].(map[string]any)["type"])
}

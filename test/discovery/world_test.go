package discovery

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/test/rig"
)

// Types of records, by the ends of their collections' names.
const (
	expression = "pub.layers.expression.expression"
	layer      = "pub.layers.annotation.annotationLayer"
	corpus     = "pub.layers.corpus.corpus"
	membership = "pub.layers.corpus.membership"
	ontology   = "pub.layers.ontology.ontology"
	persona    = "pub.layers.persona.persona"
	experiment = "pub.layers.judgment.experimentDef"
	eprint     = "pub.layers.eprint.eprint"
	changelog  = "pub.layers.changelog.entry"
	graphEdge  = "pub.layers.graph.graphEdge"
	edgeSet    = "pub.layers.graph.graphEdgeSet"
)

// world is a network with two corpora in it.
type world struct {
	*simulate.World
	t      *testing.T
	server *simulate.Server
}

func newWorld(t *testing.T) *world {
	t.Helper()
	sim, err := simulate.NewWorld(simulate.Config{Seed: 11})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sim.Close()) })
	w := &world{World: sim, t: t, server: simulate.NewServer(sim, simulate.ServerConfig{})}
	require.NoError(t, w.server.Start("127.0.0.1:0"))
	t.Cleanup(func() { require.NoError(t, w.server.Stop()) })
	var authors []syntax.DID
	for _, name := range []string{"adaeze", "bruno", "chandra"} {
		did, err := w.CreateAccount(name)
		require.NoError(t, err)
		authors = append(authors, did)
	}
	for seed := range uint64(2) {
		named := 0
		for _, p := range fixture.Corpus(seed, authors, 9) {
			if p.Value["subkind"] == "ner" {
				named++
				yoruba(p.Value, named)
			}
			w.write(p.Key, record.Create, p.Value)
		}
	}
	return w
}

// yoruba makes two of three layers of names ones on Yoruba text, in one that everyone
// has or a regional one, with persons of high and low confidence.
func yoruba(layer map[string]any, nth int) {
	if nth%3 == 0 {
		return
	}
	layer["languages"] = []any{[]string{"yo", "yo-NG"}[nth%2]}
	names, _ := layer["annotations"].([]any)
	for i, name := range names {
		name.(map[string]any)["label"] = "PERSON"
		name.(map[string]any)["confidence"] = int64(950 - 200*((i+nth)%2))
	}
}

func (w *world) upstream() rig.Upstream {
	return rig.Upstream{Relay: w.server.RelayURL(), PLC: w.server.URL()}
}

func (w *world) write(key record.Key, action record.Action, value map[string]any) {
	w.t.Helper()
	_, err := w.Commit(key.DID, simulate.Write{Action: action, Collection: key.Collection, Rkey: key.Rkey, Value: value})
	require.NoError(w.t, err)
}

// indexed waits until all that is published is in all stores, and has the statistics
// computed of it: those of less would stay as they are. The cursor alone does not tell,
// since it passes the events of a repository that has yet to be fetched.
func (w *world) indexed(d *rig.Deployment, ix *rig.Process) {
	w.t.Helper()
	d.Reach(w.LastSeq(), ix)
	want := w.cids()
	rig.Eventually(w.t, "all that is published to be indexed", func() (bool, string) {
		have := map[string]string{}
		d.Rows(func(row pgx.Rows) error {
			var uri, cid string
			err := row.Scan(&uri, &cid)
			have[uri] = cid
			return err
		}, "SELECT 'at://' || did || '/' || collection || '/' || rkey, cid FROM records")
		return maps.Equal(want, have), fmt.Sprintf("%d records, should be %d", len(have), len(want))
	}, ix)
	d.Settle(ix)
	d.Run("stats", "refresh")
}

// cids are those of all that is published, by AT-URI.
func (w *world) cids() map[string]string {
	cids := map[string]string{}
	for entry := range w.Records(simulate.View{}) {
		cids[entry.Key.String()] = string(entry.CID)
	}
	return cids
}

// published is a record as its author wrote it.
type published struct {
	key   record.Key
	uri   string
	value map[string]any
}

// truth is all that is published.
type truth struct {
	t   *testing.T
	all []published
}

func (w *world) truth() *truth {
	w.t.Helper()
	tr := &truth{t: w.t}
	for entry := range w.Records(simulate.View{}) {
		value, err := atdata.UnmarshalCBOR(entry.CBOR)
		require.NoError(w.t, err)
		tr.all = append(tr.all, published{key: entry.Key, uri: entry.Key.String(), value: value})
	}
	return tr
}

// of are the records of a type for which holds is true; nil for all.
func (tr *truth) of(collection string, holds func(published) bool) (found []published) {
	for _, p := range tr.all {
		if string(p.key.Collection) == collection && (holds == nil || holds(p)) {
			found = append(found, p)
		}
	}
	return found
}

// first is one of those, of which there must be one.
func (tr *truth) first(collection string, holds func(published) bool) published {
	tr.t.Helper()
	found := tr.of(collection, holds)
	require.NotEmpty(tr.t, found, "the world has no such %s", collection)
	return found[0]
}

func uris(of []published) []string {
	out := []string{}
	for _, p := range of {
		out = append(out, p.uri)
	}
	return sorted(out)
}

func sorted(list []string) []string {
	if list == nil {
		return []string{}
	}
	slices.Sort(list)
	return list
}

// text is what is at a path of properties, as far as it is a text.
func (p published) text(path string) string {
	s, _ := at(p.value, path).(string)
	return s
}

func at(value any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		object, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = object[name]
	}
	return value
}

// each are the elements of a list.
func (p published) each(path string) []map[string]any {
	var out []map[string]any
	list, _ := at(p.value, path).([]any)
	for _, element := range list {
		if object, ok := element.(map[string]any); ok {
			out = append(out, object)
		}
	}
	return out
}

// speaks tells whether a record names a language or a narrower one.
func (p published) speaks(language string) bool {
	list, _ := at(p.value, "languages").([]any)
	return slices.ContainsFunc(list, func(l any) bool {
		text, _ := l.(string)
		text = strings.ToLower(text)
		return text == language || strings.HasPrefix(text, language+"-")
	})
}

// named finds every reference of a record: the path, with [] for elements, and the
// AT-URI there. Places are told by their values: nothing else here begins so.
func (p published) named() (places [][2]string) {
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case string:
			if strings.HasPrefix(v, "at://") {
				places = append(places, [2]string{path, v})
			}
		case []any:
			for _, element := range v {
				walk(path+"[]", element)
			}
		case map[string]any:
			for name, property := range v {
				walk(strings.TrimPrefix(path+"."+name, "."), property)
			}
		}
	}
	walk("", p.value)
	return places
}

// referring are the records of a type, or of all, that name a target, at a path or anywhere.
func (tr *truth) referring(target, collection, path string) (lines []string) {
	seen := map[string]bool{}
	for _, p := range tr.all {
		if collection != "" && string(p.key.Collection) != collection {
			continue
		}
		for _, place := range p.named() {
			line := p.uri + " " + place[0]
			if place[1] == target && (path == "" || place[0] == path) && !seen[line] {
				seen[line] = true
				lines = append(lines, line)
			}
		}
	}
	return sorted(lines)
}

// edge is one of the graph between concepts.
type edge struct{ kind, from, to string }

// edges are what graph edges and sets of them state, and which nodes are at their ends.
func (tr *truth) edges() (all []edge) {
	end := func(v any) string {
		if uri, ok := at(v, "recordRef").(string); ok {
			return uri
		}
		source, _ := at(v, "knowledgeRef.source").(string)
		identifier, _ := at(v, "knowledgeRef.identifier").(string)
		return "knowledge:" + source + ":" + identifier
	}
	for _, p := range tr.of(graphEdge, nil) {
		all = append(all, edge{p.text("edgeType"), end(p.value["source"]), end(p.value["target"])})
	}
	for _, p := range tr.of(edgeSet, nil) {
		for _, e := range p.each("edges") {
			kind, _ := e["edgeType"].(string)
			all = append(all, edge{kind, end(e["source"]), end(e["target"])})
		}
	}
	return all
}

// within are the nodes that are so many edges away from one, or fewer, with how many.
func within(edges []edge, root string, most int) map[string]int {
	depth := map[string]int{root: 0}
	for hop := 1; hop <= most; hop++ {
		for _, e := range edges {
			for _, pair := range [][2]string{{e.from, e.to}, {e.to, e.from}} {
				if d, ok := depth[pair[0]]; ok && d == hop-1 {
					if _, met := depth[pair[1]]; !met {
						depth[pair[1]] = hop
					}
				}
			}
		}
	}
	return depth
}

package discovery

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/test/rig"
)

// answered requires that every question is answered as is right, and by whom it should be.
func answered(t *testing.T, c *client, all []question) {
	t.Helper()
	for i := range all {
		require.NotEmpty(t, all[i].want, "%s: nothing to find", all[i].name)
		answeredByItsStore(t, c, &all[i])
	}
}

// answeredByItsStore asks what a store that is there should answer. A store that pauses is
// given a second or a few before PostgreSQL answers in its place, which says so and is
// right as well: then the question is asked again.
func answeredByItsStore(t *testing.T, c *client, q *question) {
	t.Helper()
	if !askAgain(t, c, q) {
		return
	}
	rig.Eventually(t, q.name+": to be answered by "+q.by, func() (bool, string) {
		return !askAgain(t, c, q), "PostgreSQL answers in its place"
	})
}

// askAgain asks, and tells whether a store that paused is to be asked again: because
// PostgreSQL has answered in its place, as it may for some clients, or because a walk has
// to begin anew. It requires that an answer is right, whoever gave it.
func askAgain(t *testing.T, c *client, q *question) bool {
	t.Helper()
	may := c.fallback && q.by != postgresql
	got, degraded, err := c.ask(q)
	if may && expired(err) { // the store paused between two pages: begin anew, as the answer says
		return true
	}
	require.NoError(t, err, q.name)
	require.Equal(t, q.want, got, q.name)
	require.False(t, degraded && !may, q.name)
	return degraded
}

// TestQuestionsAreAnsweredByTheRightStore asks with all four stores, and then with
// Elasticsearch or Neo4j gone: of an API that has no other way, and of one that may fall
// back on PostgreSQL.
func TestQuestionsAreAnsweredByTheRightStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	fallback := []string{"LAYERS_SEARCH_FALLBACK=true", "LAYERS_GRAPH_FALLBACK=true"}
	d := rig.Deploy(t, rig.OpenStores(t), w.upstream(), fallback...)
	ix := d.Indexer()
	w.indexed(d, ix)
	strictBase, _ := d.Replica(rig.FreeAddress(t), "LAYERS_SEARCH_FALLBACK=false", "LAYERS_GRAPH_FALLBACK=false", "LAYERS_CACHE=false")
	lenientBase, _ := d.Replica(rig.FreeAddress(t), "LAYERS_CACHE=false")
	cachedBase, _ := d.Replica(rig.FreeAddress(t))
	strict, lenient, cached := newClient(strictBase), newClient(lenientBase), newClient(cachedBase)
	lenient.fallback, cached.fallback = true, true
	all := questions(w.truth())
	rig.Eventually(t, "all to be there to be found", func() (bool, string) { return same(strict, all) }, ix)
	answered(t, strict, all)
	answered(t, lenient, all)
	for range 2 { // the second time from what is kept
		answered(t, cached, all)
	}

	for _, gone := range []struct {
		name  string
		proxy *rig.Proxy
	}{{elasticsearch, d.Proxies.Elasticsearch}, {neo4j, d.Proxies.Neo4j}} {
		gone.proxy.Cut()
		detail(t, strictBase, gone.name)
		for i := range all {
			q := &all[i]
			if q.by != gone.name {
				answeredByItsStore(t, strict, q)
				answeredByItsStore(t, lenient, q)
				continue
			}
			_, _, err := strict.ask(q)
			var no *refused
			require.ErrorAs(t, err, &no, q.name)
			require.Equal(t, http.StatusServiceUnavailable, no.status, "%s: %s", q.name, no.body)
			got, degraded, err := lenient.ask(q)
			require.NoError(t, err, q.name)
			require.Equal(t, q.want, got, "%s: in place of %s", q.name, gone.name)
			require.True(t, degraded, "%s: in place of %s", q.name, gone.name)
		}
		require.Positive(t, gone.proxy.Severed.Load()+gone.proxy.Refused.Load())
		gone.proxy.Restore()
		detail(t, strictBase)
		rig.Eventually(t, gone.name+" to answer again", func() (bool, string) {
			for i := range all {
				if _, degraded, err := lenient.ask(&all[i]); err != nil || degraded {
					return false, all[i].name
				}
			}
			return true, ""
		})
		answered(t, strict, all)
	}

	gone := w.revise()
	w.indexed(d, ix)
	after := questions(w.truth())
	require.NotEqual(t, all, after)
	for _, c := range []*client{strict, lenient, cached} {
		rig.Eventually(t, "the old answers to be gone", func() (bool, string) { return same(c, after) }, ix)
		answered(t, c, after)
		for i := range gone {
			got, _, err := c.ask(&gone[i])
			var no *refused
			if errors.As(err, &no) {
				require.Equal(t, http.StatusNotFound, no.status, gone[i].name)
				continue
			}
			require.NoError(t, err, gone[i].name)
			require.Empty(t, got, gone[i].name)
		}
	}
	ix.Stop()
}

// same tells whether all answers are right and by whom they should be: Elasticsearch
// shows what is new a moment after it has it, and a process that was not asked while a
// store was away finds its connections lost when it is asked again.
func same(c *client, all []question) (bool, string) {
	for i := range all {
		got, degraded, err := c.ask(&all[i])
		if err != nil || degraded || !slices.Equal(got, all[i].want) {
			return false, all[i].name
		}
	}
	return true, ""
}

// detail waits until /ready names what is away, and requires that the process is ready
// all the same.
func detail(t *testing.T, base string, away ...string) {
	t.Helper()
	rig.Eventually(t, fmt.Sprintf("/ready to name %v as away", away), func() (bool, string) {
		status, body := readiness(t, base)
		names := slices.Sorted(maps.Keys(body.Degraded))
		return status == http.StatusOK && slices.Equal(names, away), fmt.Sprint(status, body)
	})
}

// TestQuestionsInTheEmbeddedDefault asks the same where there is PostgreSQL alone.
func TestQuestionsInTheEmbeddedDefault(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := rig.Deploy(t, rig.OpenQueues(t), w.upstream())
	ix := d.Indexer()
	w.indexed(d, ix)
	c := newClient(d.API())
	all := questions(w.truth())
	rig.Eventually(t, "all to be there to be found", func() (bool, string) { return same(c, all) }, ix)
	answered(t, c, all)
	w.revise()
	w.indexed(d, ix)
	after := questions(w.truth())
	rig.Eventually(t, "the old answers to be gone", func() (bool, string) { return same(c, after) }, ix)
	answered(t, c, after)
	ix.Stop()
	filling(t, d, c)
}

// filling has PostgreSQL's search and graph filled anew, which nobody carries out, and
// requires that all who answer from them say so.
func filling(t *testing.T, d *rig.Deployment, c *client) {
	t.Helper()
	_, ready := readiness(t, c.base)
	require.Empty(t, ready.Incomplete)
	_, err := d.Database.Exec(t.Context(), `
		INSERT INTO sweeps (version, target, collection) SELECT 1, target, 'pub.layers.corpus.corpus' FROM unnest('{fulltext,relations}'::text[]) target`)
	require.NoError(t, err)
	for path, params := range map[string]url.Values{
		"/search": values("q", "anything"), "/corpora/autocomplete": values("q", "anything"), "/graph/grounded": values("knowledge", "anything"),
	} {
		p, err := c.page(path, params)
		require.NoError(t, err)
		require.True(t, p.Incomplete, path)
	}
	rig.Eventually(t, "/ready to name what is being filled", func() (bool, string) {
		status, body := readiness(t, c.base)
		filled := map[string]string{"fulltext": "being filled", "relations": "being filled"}
		return status == http.StatusOK && body.Status == "ready" && maps.Equal(body.Incomplete, filled), fmt.Sprint(status, body)
	})
}

// revise changes a record and deletes some, each of which questions were about. It
// returns questions that find nothing any more.
func (w *world) revise() (gone []question) {
	tr := w.truth()
	whole := tr.corpusIn("yo")
	in := tr.inCorpus(whole.uri)
	named := tr.first(layer, func(l published) bool {
		return in[l.text("expression")] && l.text("kind") == "span" && l.speaks("yo") && len(l.each("annotations")) > 0
	})
	for _, a := range named.each("annotations") {
		a["label"], a["text"] = "RENAMED", "elsewhere"
		delete(a, "knowledgeRefs")
	}
	named.value["formalism"] = "renamed-formalism"
	w.write(named.key, record.Update, named.value)
	tagged := tr.first(layer, func(l published) bool { return in[l.text("expression")] && l.text("subkind") == "pos" })
	edge := tr.first(graphEdge, func(p published) bool { return p.text("target.recordRef") != "" })
	member := tr.first(membership, func(p published) bool {
		return p.text("corpusRef") == whole.uri && p.text("expressionRef") != named.text("expression")
	})
	for _, p := range []published{tagged, edge, member} {
		w.write(p.key, record.Delete, nil)
	}
	gone = append(gone,
		question{name: "references of a deleted layer", path: "/references", params: values("target", tagged.text("expression"), "ref_type", "annotation-layers", "path", "parentLayerRef"), read: referencesRead},
		question{name: "a deleted layer in the graph", path: "/graph/nodes/" + escape(tagged.uri) + "/neighbors", params: values("direction", "out", "edge_type", "ANNOTATES"), read: neighborsRead},
		question{name: "a deleted layer among what refers to its text", path: "/annotations", params: values("expression", tagged.text("expression"), "subkind", "pos"), read: hitsRead},
	)
	return gone
}

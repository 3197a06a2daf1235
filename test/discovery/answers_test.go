package discovery

import (
	"errors"
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
		q := &all[i]
		require.NotEmpty(t, q.want, "%s: nothing to find", q.name)
		got, degraded, err := c.ask(q)
		require.NoError(t, err, q.name)
		require.Equal(t, q.want, got, q.name)
		require.False(t, degraded, q.name)
	}
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
	d.Reach(w.LastSeq(), ix)
	d.Settle(ix)
	d.Run("stats", "refresh")
	strictBase, _ := d.Replica(rig.FreeAddress(t), "LAYERS_SEARCH_FALLBACK=false", "LAYERS_GRAPH_FALLBACK=false", "LAYERS_CACHE=false")
	lenientBase, _ := d.Replica(rig.FreeAddress(t), "LAYERS_CACHE=false")
	cachedBase, _ := d.Replica(rig.FreeAddress(t))
	strict, lenient, cached := newClient(strictBase), newClient(lenientBase), newClient(cachedBase)
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
			got, degraded, err := strict.ask(q)
			if q.by != gone.name {
				require.NoError(t, err, "%s: needs no %s", q.name, gone.name)
				require.Equal(t, q.want, got, q.name)
				require.False(t, degraded, q.name)
			} else {
				var no *refused
				require.ErrorAs(t, err, &no, q.name)
				require.Equal(t, http.StatusServiceUnavailable, no.status, "%s: %s", q.name, no.body)
			}
			got, degraded, err = lenient.ask(q)
			require.NoError(t, err, q.name)
			require.Equal(t, q.want, got, "%s: in place of %s", q.name, gone.name)
			require.Equal(t, q.by == gone.name, degraded, q.name)
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
	d.Reach(w.LastSeq(), ix)
	d.Settle(ix)
	d.Run("stats", "refresh")
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
	rig.Eventually(t, "/ready to name what is away", func() (bool, string) {
		status, body := readiness(t, base)
		require.Equal(t, http.StatusOK, status, "%v", body)
		names := slices.Sorted(maps.Keys(body.Degraded))
		return slices.Equal(names, away), body.Status
	})
}

// TestQuestionsInTheEmbeddedDefault asks the same where there is PostgreSQL alone.
func TestQuestionsInTheEmbeddedDefault(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := rig.Deploy(t, rig.OpenQueues(t), w.upstream())
	ix := d.Indexer()
	d.Reach(w.LastSeq(), ix)
	d.Settle(ix)
	d.Run("stats", "refresh")
	c := newClient(d.API())
	answered(t, c, questions(w.truth()))
	w.revise()
	d.Reach(w.LastSeq(), ix)
	d.Settle(ix)
	d.Run("stats", "refresh")
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
		require.Equal(t, http.StatusOK, status)
		return body.Status == "ready" && maps.Equal(body.Incomplete, map[string]string{"fulltext": "being filled", "relations": "being filled"}), ""
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

package e2e

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/test/rig"
)

// operator is one who asks the indexer's metrics address for what commands do.
type operator struct {
	t              *testing.T
	address, token string
}

// reindexing is what is told of a build.
type reindexing struct {
	Running            bool
	StartedAt, EndedAt time.Time
	Error              string
	Differences        *int64
}

func (o *operator) reindex(method, query string, status int) (told reindexing) {
	o.t.Helper()
	request, err := http.NewRequestWithContext(o.t.Context(), method, "http://"+o.address+"/api/v1/admin/reindex"+query, nil)
	require.NoError(o.t, err)
	request.Header.Set("Authorization", "Bearer "+o.token)
	response, err := http.DefaultClient.Do(request)
	require.NoError(o.t, err)
	defer response.Body.Close()
	require.Equal(o.t, status, response.StatusCode)
	require.NoError(o.t, json.NewDecoder(response.Body).Decode(&told))
	return told
}

// built has projections built anew, and waits until that is reported as done and right.
func (o *operator) built(targets string, indexer *rig.Process) {
	o.t.Helper()
	begun := o.reindex(http.MethodPost, "?to="+targets, http.StatusAccepted)
	require.False(o.t, begun.StartedAt.IsZero())
	var told reindexing
	rig.Eventually(o.t, targets+" to be built", func() (bool, string) {
		told = o.reindex(http.MethodGet, "", http.StatusOK)
		return !told.Running, fmt.Sprintf("%+v", told)
	}, indexer)
	require.Empty(o.t, told.Error)
	require.Equal(o.t, begun.StartedAt, told.StartedAt)
	require.False(o.t, told.EndedAt.Before(told.StartedAt))
	require.NotNil(o.t, told.Differences)
	require.Zero(o.t, *told.Differences)
}

// TestOperatorsBuildProjectionsAnew damages both projections behind the program's back,
// and has them built anew over HTTP: they are whole then, in indexes and under keys that
// were not there before, and the old ones are gone.
func TestOperatorsBuildProjectionsAnew(t *testing.T) {
	w := newWorld(t, simulate.Config{Seed: 41}, simulate.ServerConfig{})
	did := w.account("oumou")
	for _, p := range fixture.Corpus(41, []syntax.DID{did}, 3) {
		w.commit(did, simulate.Create(p.Key.Collection, p.Key.Rkey, p.Value))
	}
	o := &operator{t: t, address: rig.FreeAddress(t), token: rand.Text() + rand.Text()}
	d := deploy(t, w.upstream(), "LAYERS_ADMIN_TOKEN="+o.token)
	ix := d.Indexer("--metrics-listen", o.address)
	d.Reach(w.LastSeq(), ix)
	d.Settle(ix)

	want := truthOf(w.World)
	keys := want.in(expression).keys()
	surplus := keys[0]
	surplus.Rkey = "surplus"
	d.undocument(keys[0], surplus)
	deleted := d.Cypher(t, fmt.Sprintf("MATCH (n:Record {key: $space + '%s'}) DETACH DELETE n RETURN 1", keys[1]))
	require.Len(t, deleted, 1)
	before := d.indexes()

	o.built("search,graph", ix)
	after := d.indexes()
	require.Len(t, after, len(before))
	for name := range after {
		require.NotContains(t, before, name)
	}
	d.searched(want, d.snapshot())
	nodes := d.Cypher(t, fmt.Sprintf("MATCH (n:Record) WHERE n.key STARTS WITH '~%s.' AND NOT coalesce(n._dangling, false) RETURN n.key", d.Space))
	require.Len(t, nodes, len(want.in(followed...)))
	require.Empty(t, d.Cypher(t, "MATCH (n) WHERE n.key STARTS WITH $space RETURN n.key"), "the old graph")
	d.verified()
	require.Regexp(t, `"operator"\s+http\s+reindex\s+"search,graph"\s+done\s+"0 differences"`, d.Run("audit"))
	ix.Stop()
}

// indexes are the names of the deployment's indexes in Elasticsearch.
func (d *deployment) indexes() map[string]json.RawMessage {
	d.t.Helper()
	var found map[string]json.RawMessage
	d.Search(d.t, http.MethodGet, "/"+d.Prefix+"-*/_alias", nil, &found)
	return found
}

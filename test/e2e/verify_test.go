package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/test/rig"
)

// verified requires that the program itself finds its stores to agree, and every
// value to be what its CID says, once the projections have caught up.
func (d *deployment) verified() {
	d.t.Helper()
	output := d.Run("verify", "--deep", "--wait", rig.Patience.String())
	require.Regexp(d.t, `(?m)^0 differences`, output)
	require.Regexp(d.t, `(?m)^[1-9]\d* values examined`, output)
}

// TestVerifyFindsDamage damages each store behind the program's back, so that the
// other tests' finding of no differences means something.
func TestVerifyFindsDamage(t *testing.T) {
	w := newWorld(t, simulate.Config{Seed: 17}, simulate.ServerConfig{})
	did := w.account("amina")
	for _, p := range fixture.Corpus(17, []syntax.DID{did}, 3) {
		w.commit(did, simulate.Create(p.Key.Collection, p.Key.Rkey, p.Value))
	}
	d := deploy(t, w.upstream())
	ix := d.Indexer()
	d.Reach(w.LastSeq(), ix)
	d.Settle(ix)
	d.verified()

	expressions := truthOf(w.World).in(expression).keys()
	layers := truthOf(w.World).in(annotationLayer).keys()
	undocumented, unknown, altered, unannotated := expressions[0], expressions[1], expressions[2], layers[0]
	surplus := undocumented
	surplus.Rkey = "surplus"
	d.undocument(undocumented, surplus)
	d.Cypher(t, fmt.Sprintf("MATCH (n:Record {key: $space + '%s'}) DETACH DELETE n", unknown))
	d.change(`DELETE FROM annotations WHERE rkey = $1 AND ordinal = 0`, unannotated.Rkey)
	d.change(`UPDATE records SET value = replace(value::text, '"text":"', '"text":"!')::json WHERE rkey = $1`, altered.Rkey)

	output := d.finds("verify", "--deep", "--repair")
	for _, line := range []string{
		"search\tmissing\t" + undocumented.String(), "search\textra\t" + surplus.String(), "graph\tmissing\t" + unknown.String(),
		"tables\tannotations\t" + unannotated.String(), "postgresql\tdamaged\t" + altered.String(),
	} {
		require.Contains(t, output, line)
	}
	require.Regexp(t, `(?m)^5 differences`, output)

	d.change(`UPDATE records SET value = replace(value::text, '"text":"!', '"text":"')::json WHERE rkey = $1`, altered.Rkey)
	d.Settle(ix)
	d.verified()
	d.projected(truthOf(w.World))
	ix.Stop()
}

// undocument takes a record's document out of its index, and puts it there again
// as another record's.
func (d *deployment) undocument(key, as record.Key) {
	d.t.Helper()
	var found struct {
		Hits struct {
			Hits []struct {
				Index  string         `json:"_index"`
				Source map[string]any `json:"_source"`
			}
		}
	}
	id := map[string]any{"ids": map[string]any{"values": []string{key.String()}}}
	d.Search(d.t, http.MethodPost, "/"+d.Prefix+"-*/_refresh", nil, nil)
	d.Search(d.t, http.MethodPost, "/"+d.Prefix+"-*/_search", map[string]any{"query": id}, &found)
	require.Len(d.t, found.Hits.Hits, 1)
	hit := found.Hits.Hits[0]
	path := func(key record.Key) string {
		return "/" + hit.Index + "/_doc/" + strings.ReplaceAll(key.String(), "/", "%2F") + "?refresh=true"
	}
	d.Search(d.t, http.MethodDelete, path(key), nil, nil)
	hit.Source["rkey"], hit.Source["uri"] = as.Rkey, as.String()
	d.Search(d.t, http.MethodPut, path(as), hit.Source, nil)
}

// change runs a statement that must change one row.
func (d *deployment) change(statement string, args ...any) {
	d.t.Helper()
	tag, err := d.Database.Exec(d.t.Context(), statement, args...)
	require.NoError(d.t, err)
	require.EqualValues(d.t, 1, tag.RowsAffected(), statement)
}

// finds runs a command that must end with exit code 1, and returns what it printed.
func (d *deployment) finds(args ...string) string {
	d.t.Helper()
	return d.RunFailing(1, args...)
}

package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/test/rig"
)

// TestCheck asks a service that is well, and then one thing after the other goes wrong.
func TestCheck(t *testing.T) {
	w := newWorld(t, simulate.Config{Seed: 12}, simulate.ServerConfig{})
	d := deploy(t, w.upstream())
	did := w.account("author")
	for _, p := range fixture.Corpus(3, []syntax.DID{did}, 3) {
		w.commit(p.Key.DID, simulate.Create(p.Key.Collection, p.Key.Rkey, p.Value))
	}
	metrics := rig.FreeAddress(t)
	ix := rig.Launch(t, append(slices.Clone(d.Env), "LAYERS_METRICS_LISTEN="+metrics), "indexer", "indexer")
	d.Reach(w.LastSeq(), ix)
	d.Settle(ix)
	address := rig.FreeAddress(t)
	base, _ := d.Replica(address, "LAYERS_PUBLIC_URL=http://"+address, "LAYERS_RATE_LIMITS=open")
	var known string
	require.NoError(t, d.Database.QueryRow(t.Context(), "SELECT 'at://' || did || '/' || collection || '/' || rkey FROM records WHERE collection = 'pub.layers.corpus.corpus' LIMIT 1").Scan(&known))
	// The simulated clock is years behind, which would be a lag.
	args := []string{"check", "--url", base, "--metrics-url", "http://" + metrics + "/metrics", "--max-lag", "1000000h", "--pause", "100ms", "--record", known}
	out := d.Run(args...)
	require.NotContains(t, out, "FAILED")
	require.Contains(t, out, "each with the CID of its value")
	require.Contains(t, out, "no frame came", "nobody writes")

	require.Contains(t, d.RunFailing(1, append(slices.Clone(args), "--max-lag", "1s")...), "FAILED  stream")
	out = d.RunFailing(1, "check", "--url", base, "--record", "at://"+string(did)+"/pub.layers.corpus.corpus/none")
	require.Contains(t, out, "FAILED  records")
	require.Contains(t, out, "1 of 8 checks failed")

	_, err := d.Database.Exec(t.Context(), "UPDATE records SET value = replace(value::text, 'createdAt', 'createdat')::json WHERE collection = 'pub.layers.corpus.corpus'")
	require.NoError(t, err)
	require.Contains(t, d.RunFailing(1, args...), "has a value whose CID is")

	d.Proxies.Elasticsearch.Cut()
	rig.Eventually(t, "the API to find Elasticsearch gone, which it looks for once a second", func() (bool, string) {
		out := d.RunFailing(1, args...)
		return strings.Contains(out, "FAILED  ready"), out
	})
	ix.Stop()
	require.Contains(t, d.RunFailing(1, args...), "FAILED  stream")
	bare, _ := d.Replica(rig.FreeAddress(t))
	out = d.RunFailing(1, "check", "--url", bare)
	require.Contains(t, out, "FAILED  limits")
	require.Contains(t, out, "FAILED  identity")
}

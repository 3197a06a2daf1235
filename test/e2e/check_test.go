package e2e

import (
	"fmt"
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
	d.checks(ix, 0, []string{"each with the CID of its value", "no frame came"}, args...)

	require.Contains(t, d.RunFailing(1, append(slices.Clone(args), "--max-lag", "1s")...), "FAILED  stream")
	d.checks(ix, 1, []string{"FAILED  records", "1 of 8 checks failed"}, "check", "--url", base, "--record", "at://"+string(did)+"/pub.layers.corpus.corpus/none")

	_, err := d.Database.Exec(t.Context(), "UPDATE records SET value = replace(value::text, 'createdAt', 'createdat')::json WHERE collection = 'pub.layers.corpus.corpus'")
	require.NoError(t, err)
	d.checks(ix, 1, []string{"has a value whose CID is", "1 of 9 checks failed"}, args...)

	d.Proxies.Elasticsearch.Cut()
	rig.Eventually(t, "the API to find Elasticsearch gone, which it looks for once a second", func() (bool, string) {
		out := d.RunFailing(1, args...)
		return strings.Contains(out, "FAILED  ready"), out
	})
	ix.Stop()
	require.Contains(t, d.RunFailing(1, args...), "FAILED  stream")
	bare, _ := d.Replica(rig.FreeAddress(t))
	out := d.RunFailing(1, "check", "--url", bare)
	require.Contains(t, out, "FAILED  limits")
	require.Contains(t, out, "FAILED  identity")
}

// checks waits until a run ends with an exit code and says all of this, and that a check
// failed only if it is to. One run alone may meet a store that is slow to answer for once.
func (d *deployment) checks(ix *rig.Process, code int, says []string, args ...string) {
	d.t.Helper()
	rig.Eventually(d.t, fmt.Sprintf("a check to say %q", says), func() (bool, string) {
		ended, out := d.Try(args...)
		silent := func(part string) bool { return !strings.Contains(out, part) }
		if ended == code && strings.Contains(out, "FAILED") == (code != 0) && !slices.ContainsFunc(says, silent) {
			return true, ""
		}
		d.t.Log(out)
		return false, "it says something else"
	}, ix)
}

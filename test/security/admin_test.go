package security

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/test/rig"
)

// TestOperators has a person do at a running indexer what commands do, and finds both
// in the log of what operators did.
func TestOperators(t *testing.T) {
	t.Parallel()
	sim, err := simulate.NewWorld(simulate.Config{Seed: 31})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sim.Close()) })
	server := simulate.NewServer(sim, simulate.ServerConfig{})
	require.NoError(t, server.Start("127.0.0.1:0"))
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	author, err := sim.CreateAccount("gloria")
	require.NoError(t, err)
	made := fixture.New(1).Record("pub.layers.persona.persona")
	_, err = sim.Commit(author, simulate.Write{Action: record.Create, Collection: "pub.layers.persona.persona", Rkey: "one", Value: made})
	require.NoError(t, err)

	token, address := rand.Text()+rand.Text(), rig.FreeAddress(t)
	d := rig.Deploy(t, rig.OpenQueues(t), rig.Upstream{Relay: server.RelayURL(), PLC: server.URL()}, "LAYERS_ADMIN_TOKEN="+token, "LAYERS_METRICS_LISTEN="+address)
	ix := d.Indexer()
	d.Reach(sim.LastSeq(), ix)
	d.Settle(ix)
	ask := func(method, path, token string) (int, map[string]any) {
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+"/api/v1/admin"+path, nil)
		require.NoError(t, err)
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		var answer map[string]any
		if len(body) > 0 {
			require.NoError(t, json.Unmarshal(body, &answer), "%s", body)
		}
		return response.StatusCode, answer
	}
	status, _ := ask("GET", "/dlq", "another")
	require.Equal(t, http.StatusUnauthorized, status)
	status, _ = ask("GET", "/dlq", token)
	require.Equal(t, http.StatusOK, status)
	status, answer := ask("POST", "/repos/"+string(author)+"/resync", token)
	require.Equal(t, http.StatusAccepted, status, answer)
	require.Equal(t, true, answer["indexerRuns"])
	status, answer = ask("POST", "/reindex?to=nothing", token)
	require.Equal(t, http.StatusBadRequest, status, answer)
	status, answer = ask("POST", "/reindex", token)
	require.Equal(t, http.StatusAccepted, status, answer)
	rig.Eventually(t, "the projections to be built", func() (bool, string) {
		status, answer := ask("GET", "/reindex", token)
		return status == http.StatusOK && answer["running"] == false && answer["differences"] == float64(0), fmt.Sprint(answer)
	}, ix)
	status, _ = ask("DELETE", "/reindex", token)
	require.Equal(t, http.StatusNoContent, status)
	d.Run("stats", "refresh", "--as", "somebody")
	d.Run("backfill", "--repo", string(author))

	said := d.Run("audit")
	for _, line := range []string{
		`"operator"\s+http\s+repo.resync\s+"` + string(author) + `"\s+done`, `"operator"\s+http\s+reindex\s+""\s+begun`, `"operator"\s+http\s+reindex\s+""\s+done\s+"0 differences"`,
		`"operator"\s+http\s+reindex.abort\s+""\s+done`, `"somebody"\s+cli\s+stats.refresh\s+""\s+done`, `"os:[^"]+"\s+cli\s+backfill\s+.*\s+done`, `cli\s+migrate`,
	} {
		require.Regexp(t, line, said)
	}
	require.Contains(t, ix.Output(), "operator's action")
}

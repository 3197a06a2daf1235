package e2e

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
)

const notebook = syntax.NSID("org.example.field.notebook")

// notebookLexicons is a directory with a record type of an operator's own, whose
// title has at most so many bytes, and the query for one.
func notebookLexicons(t *testing.T, longest int) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"notebook": fmt.Sprintf(`{"lexicon": 1, "id": %q, "defs": {"main": {"type": "record", "key": "any", "record": {
			"type": "object", "required": ["title"], "properties": {"title": {"type": "string", "maxLength": %d}}}}}}`, notebook, longest),
		"getNotebook": `{"lexicon": 1, "id": "org.example.field.getNotebook", "defs": {
			"main": {"type": "query", "parameters": {"type": "params", "required": ["uri"], "properties": {"uri": {"type": "string", "format": "at-uri"}}},
				"output": {"encoding": "application/json", "schema": {"type": "ref", "ref": "#view"}}, "errors": [{"name": "RecordNotFound"}]},
			"view": {"type": "object", "required": ["uri", "cid", "value"], "properties": {"uri": {"type": "string", "format": "at-uri"},
				"cid": {"type": "string", "format": "cid"}, "value": {"type": "ref", "ref": "org.example.field.notebook"}}}}}`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+".json"), []byte(text), 0o600))
	}
	return dir
}

// TestReplayAfterALexiconChanged: a record that its lexicon refuses is a dead letter,
// stays one when it is put through again too early, and is served after the lexicon
// that allows it was brought.
func TestReplayAfterALexiconChanged(t *testing.T) {
	w := newWorld(t, simulate.Config{Seed: 6}, simulate.ServerConfig{})
	strict, lenient := notebookLexicons(t, 5), notebookLexicons(t, 500)
	d := deploy(t, w.upstream(), "LAYERS_LEXICONS="+strict, "LAYERS_BACKFILL=false") // which would bring the record by another way, and at any time
	did := w.account("fieldworker")
	value := map[string]any{"$type": string(notebook), "title": "The third notebook"}
	w.commit(did, simulate.Create(notebook, "third", value))
	key := record.Key{DID: did, Collection: notebook, Rkey: "third"}

	ix := d.Indexer()
	d.Reach(w.LastSeq(), ix)
	require.Equal(t, map[string]int{"validate": 1}, d.letterStages())
	require.Contains(t, d.Run("dlq", "replay", "--collection", string(notebook)), "0 settled, 1 failed again")
	ix.Stop()

	d.Env = append(d.Env, "LAYERS_LEXICONS="+lenient)
	ix = d.Indexer()
	require.Contains(t, d.Run("dlq", "replay", "--all"), "1 settled, 0 failed again")
	require.Empty(t, d.letterStages())
	api := d.api()
	var got view
	require.NoError(t, api.query("org.example.field.getNotebook", url.Values{"uri": {key.String()}}, &got))
	require.JSONEq(t, `{"$type": "org.example.field.notebook", "title": "The third notebook"}`, string(got.Value))
	d.Settle(ix)
	d.Run("verify", "--deep")
	ix.Stop()
}

package task

import (
	"fmt"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
)

func TestQueueOf(t *testing.T) {
	t.Parallel()
	for collection, want := range map[syntax.NSID]Queue{
		"pub.layers.expression.expression": High,
		"pub.layers.annotation.clusterSet": High,
		"pub.layers.graph.graphEdge":       Medium,
		"pub.layers.changelog.entry":       Medium,
		"pub.layers.eprint.dataLink":       Low,
		"pub.layers.novelty.thing":         Low,
		"app.bsky.feed.post":               Low,
		"pub.layersx.expression.x":         Low,
	} {
		require.Equal(t, want, QueueOf(collection), collection)
	}
	for _, c := range loadCatalog(t).Collections() {
		require.NotEqual(t, Maintenance, QueueOf(c.NSID))
	}
}

func pending(id, version int64, collection string) record.Pending {
	key := record.Key{DID: someone, Collection: syntax.NSID("pub.layers." + collection), Rkey: syntax.RecordKey(fmt.Sprint("r", id))}
	return record.Pending{ID: id, Key: key, Version: version}
}

func TestSplitPutsTheUrgentFirst(t *testing.T) {
	t.Parallel()
	var rows []record.Pending
	for i := range int64(9) {
		rows = append(rows, pending(i, 100+i, []string{"persona.persona", "corpus.corpus", "expression.expression"}[i%3]))
	}
	var got []string
	for _, b := range split(rows, 2) {
		got = append(got, fmt.Sprintf("%s %d", b.queue, len(b.rows)))
		for _, r := range b.rows {
			require.Equal(t, b.queue, QueueOf(r.Key.Collection))
		}
	}
	require.Equal(t, []string{"high 2", "high 1", "medium 2", "medium 1", "low 2", "low 1"}, got)
}

// TestSplitTellsRebuildsFromChanges: many rows of one version are no changes of
// their records, a few are.
func TestSplitTellsRebuildsFromChanges(t *testing.T) {
	t.Parallel()
	var rows []record.Pending
	for i := range int64(crowd) {
		rows = append(rows, pending(i, 7, "expression.expression"))
	}
	for i := range int64(10) {
		rows = append(rows, pending(1000+i, 8, "annotation.annotationLayer"))
	}
	batches := split(rows, 1000)
	require.Len(t, batches, 2)
	require.Equal(t, High, batches[0].queue)
	require.Len(t, batches[0].rows, 10)
	require.Equal(t, Maintenance, batches[1].queue)
	require.Len(t, batches[1].rows, crowd)
}

func TestPayloadNamesRecordsAlone(t *testing.T) {
	t.Parallel()
	rows := []record.Pending{pending(1, 5, "corpus.corpus"), pending(1<<60, 1<<61, "media.media")}
	parents := []string{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	raw, err := encodePayload(record.Graph, rows, parents)
	require.NoError(t, err)
	target, got, traces, err := decodePayload(raw)
	require.NoError(t, err)
	require.Equal(t, record.Graph, target)
	require.Equal(t, rows, got)
	require.Equal(t, parents, traces)
	for _, bad := range []string{"", "{", `{"target":"graph","rows":[{"uri":"https://example.org"}]}`} {
		_, _, _, err := decodePayload([]byte(bad))
		require.Error(t, err, bad)
	}
}

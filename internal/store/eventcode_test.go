package store

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
)

func TestEventsAreUnpackedAsPacked(t *testing.T) {
	t.Parallel()
	events := []loggedEvent{
		{version: 5, letter: letterCreate, key: record.Key{DID: "did:plc:a", Collection: "pub.layers.x.y", Rkey: "one"}, detail: "cid", targets: []int64{-1, 7}},
		{version: 6, letter: letterDelete, key: record.Key{DID: "did:plc:a", Collection: "pub.layers.x.y", Rkey: "two"}},
		{version: 1 << 41, letter: letterInactive, key: record.Key{DID: "did:plc:b"}, detail: "deactivated"},
		{version: 1<<41 + 1, letter: letterUpdate, key: record.Key{DID: "did:plc:b", Collection: "pub.layers.x.y", Rkey: "one"}, detail: "cid"},
	}
	packed := encodeEvents(events)
	got, err := decodeEvents(packed)
	require.NoError(t, err)
	require.Equal(t, events, got)
	whole := 0
	for n := range packed { // cut off anywhere, it is fewer events or none, and no panic
		got, err := decodeEvents(packed[:n])
		if err == nil {
			require.Len(t, got, whole)
			require.ElementsMatch(t, events[:whole], got)
			whole++
		}
	}
	require.Equal(t, len(events), whole, "only at the ends of events")
	_, err = decodeEvents([]byte{1, 'c', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	require.ErrorIs(t, err, errEventCode)
}

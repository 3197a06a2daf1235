package xrpc

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/store"
)

var somePlace = store.Position{
	SortAt: time.Date(2026, 3, 4, 5, 6, 7, 891_011_000, time.UTC),
	DID:    "did:plc:ewvi7nxzyoun6zhxrhs64oiz",
	Rkey:   "3lwafzkjqm25s",
}

func TestCursorRoundTrips(t *testing.T) {
	t.Parallel()
	s := newScope("pub.layers.corpus.listCorpora", []filter{{name: "repo", values: []string{"did:web:a.example"}}})
	longest := store.Position{
		SortAt:     time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC),
		DID:        syntax.DID("did:web:" + strings.Repeat("a", 2040)),
		Collection: syntax.NSID("com.example." + strings.Repeat("n", 63)),
		Rkey:       syntax.RecordKey(strings.Repeat("~", 512)),
	}
	for _, at := range []store.Position{somePlace, longest} {
		text := encodeCursor(s, at)
		require.NotContains(t, text, "=")
		back, err := decodeCursor(text, s)
		require.NoError(t, err)
		require.Equal(t, at, back)
	}
}

func TestCursorBelongsToOneQueryWithItsFilters(t *testing.T) {
	t.Parallel()
	filters := []filter{{name: "expression", values: []string{"at://a/b/c"}}, {name: "kind", values: []string{"span", "token"}}}
	scopes := map[string]scope{
		"itself":           newScope("a.b.list", filters),
		"another query":    newScope("a.b.listOthers", filters),
		"without a filter": newScope("a.b.list", filters[:1]),
		"another value":    newScope("a.b.list", []filter{filters[0], {name: "kind", values: []string{"span", "tokens"}}}),
		"fewer values":     newScope("a.b.list", []filter{filters[0], {name: "kind", values: []string{"span"}}}),
		"joined values":    newScope("a.b.list", []filter{filters[0], {name: "kind", values: []string{"spantoken"}}}),
		"no filter":        newScope("a.b.list", nil),
	}
	text := encodeCursor(scopes["itself"], somePlace)
	for name, s := range scopes {
		_, err := decodeCursor(text, s)
		if name == "itself" {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, errCursorForeign, name)
	}
}

func TestCursorRefusesWhatItDidNotMake(t *testing.T) {
	t.Parallel()
	s := newScope("a.b.list", nil)
	good := encodeCursor(s, somePlace)
	raw, err := base64.RawURLEncoding.DecodeString(good)
	require.NoError(t, err)
	with := func(change func([]byte) []byte) string {
		return base64.RawURLEncoding.EncodeToString(change(append([]byte(nil), raw...)))
	}
	for name, text := range map[string]string{
		"empty":                           "",
		"not base64":                      "!!!!",
		"padded":                          good + "=",
		"standard base64":                 "+/+/+/+/+/+/+/+/+/+/+/+/+/+/",
		"cut short":                       good[:12],
		"head alone":                      with(func(b []byte) []byte { return b[:cursorHeadSize] }),
		"without rkey":                    with(func(b []byte) []byte { return b[:len(b)-len(somePlace.Rkey)] }),
		"other version":                   with(func(b []byte) []byte { b[0]++; return b }),
		"endless length":                  with(func(b []byte) []byte { b[cursorHeadSize] = 0xff; return b }),
		"no DID":                          with(func(b []byte) []byte { b[cursorHeadSize+1] = 'x'; return b }),
		"NUL in rkey":                     with(func(b []byte) []byte { return append(b, 0) }),
		"time past what PostgreSQL knows": with(func(b []byte) []byte { b[1+cursorScopeSize], b[2+cursorScopeSize] = 0x7f, 0xff; return b }),
		"very long":                       strings.Repeat("A", 100_000),
	} {
		_, err := decodeCursor(text, s)
		require.ErrorIs(t, err, errCursorMalformed, name)
	}
}

func FuzzCursor(f *testing.F) {
	s := newScope("a.b.list", nil)
	f.Add(encodeCursor(s, somePlace))
	f.Fuzz(func(t *testing.T, text string) {
		at, err := decodeCursor(text, s)
		if err != nil {
			return
		}
		again, err := decodeCursor(encodeCursor(s, at), s)
		require.NoError(t, err)
		require.Equal(t, at, again)
	})
}

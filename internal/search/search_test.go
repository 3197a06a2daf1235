package search_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/search"
	"github.com/layers-pub/layers-appview/internal/search/searchtest"
)

const collection = syntax.NSID("pub.layers.test.note")

var cid = syntax.CID("bafyreigwpvjq4zq3vcbeibd4kztnb3ezvtwvxk4q6umlxnebxlumxgqhn4")

func key(rkey string) record.Key {
	return record.Key{DID: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", Collection: collection, Rkey: syntax.RecordKey(rkey)}
}

func document(rkey string, version int64, body string) search.Document {
	return search.Document{
		Key: key(rkey), Version: version, CID: cid, CreatedAt: time.Unix(1_700_000_000, 0), IndexedAt: time.Unix(1_700_000_100, 0),
		Body: json.RawMessage(body),
	}
}

func deletion(rkey string, version int64) search.Document {
	return search.Document{Key: key(rkey), Version: version}
}

// mapping has a field of each kind that can refuse a value.
func mapping() search.Mapping {
	return search.Mapping{Collection: collection, Properties: map[string]any{
		"text":  map[string]any{"type": "text"},
		"kind":  map[string]any{"type": "keyword"},
		"count": map[string]any{"type": "long"},
		"items": map[string]any{"type": "nested", "properties": map[string]any{
			"label": map[string]any{"type": "keyword"},
			"start": map[string]any{"type": "long"},
		}},
	}}
}

// open is a client of the real server with an index for mapping().
func open(t *testing.T) (*search.Client, search.Config) {
	t.Helper()
	cfg := searchtest.Config(t)
	client := searchtest.Open(t, cfg)
	_, err := client.Ensure(t.Context(), []search.Mapping{mapping()})
	require.NoError(t, err)
	return client, cfg
}

// scan is the versions by record key, as Scan reports them after a refresh.
func scan(t *testing.T, client *search.Client) map[string]int64 {
	t.Helper()
	require.NoError(t, client.Refresh(t.Context(), collection))
	found := map[string]int64{}
	require.NoError(t, client.Scan(t.Context(), collection, func(k record.Key, version int64) error {
		_, twice := found[k.String()]
		require.False(t, twice, "%s scanned twice", k)
		found[k.String()] = version
		return nil
	}))
	return found
}

// source is a document as stored under an alias or index; nil where it is not there.
func source(t *testing.T, index, id string) map[string]any {
	t.Helper()
	res, err := http.Get(searchtest.URL(t) + "/" + index + "/_doc/" + url.PathEscape(id))
	require.NoError(t, err)
	defer res.Body.Close()
	var doc struct {
		Source map[string]any `json:"_source"`
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&doc))
	return doc.Source
}

// hits is the number of documents that a query matches.
func hits(t *testing.T, index, query string) int {
	t.Helper()
	res, err := http.Post(searchtest.URL(t)+"/"+index+"/_count", "application/json", strings.NewReader(`{"query":`+query+`}`))
	require.NoError(t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode, "%s", raw)
	var answer struct{ Count int }
	require.NoError(t, json.Unmarshal(raw, &answer))
	return answer.Count
}

func failures(t *testing.T, err error) []record.Unwritten {
	t.Helper()
	var failed *record.WriteError
	require.ErrorAs(t, err, &failed)
	return failed.Failures
}

func TestDocumentHasCommonFieldsBesideItsOwn(t *testing.T) {
	t.Parallel()
	client, _ := open(t)
	// createdAt and version are also names of record properties, of other types.
	require.NoError(t, client.Write(t.Context(), []search.Document{document("a", 7, "{\n \"version\": \"1.2\",\n \"createdAt\": {}, \"text\": \"<b>\" }")}))
	require.Equal(t, map[string]any{
		"uri": key("a").String(), "did": string(key("a").DID), "collection": string(collection), "rkey": "a", "cid": string(cid),
		"version": 7.0, "createdAt": "2023-11-14T22:13:20Z", "indexedAt": "2023-11-14T22:15:00Z",
		"value": map[string]any{"version": "1.2", "createdAt": map[string]any{}, "text": "<b>"},
	}, source(t, client.Alias(collection), key("a").String()))
}

func TestTimesBeyondTheServersRangeAreKept(t *testing.T) {
	t.Parallel()
	client, _ := open(t)
	zone := time.FixedZone("", 23*3600)
	for i, at := range []time.Time{
		time.Date(1, 1, 1, 1, 0, 0, 0, zone), time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -23*3600)),
		time.Date(0, 1, 1, 0, 0, 0, 1, zone), time.Date(1969, 1, 1, 0, 0, 0, 123456789, time.UTC),
	} {
		doc := document(fmt.Sprint(i), 1, `{}`)
		doc.CreatedAt = at
		require.NoError(t, client.Write(t.Context(), []search.Document{doc}), at)
	}
	require.Len(t, scan(t, client), 4)
}

func TestRepeatedAndShuffledWritesEndAtTheHighestVersion(t *testing.T) {
	t.Parallel()
	client, _ := open(t)
	random := rand.New(rand.NewPCG(1, 2))
	want := map[string]int64{}
	var writes []search.Document
	for k := range 40 {
		rkey := fmt.Sprint("r", k)
		last := int64(0)
		for version := int64(1); version <= 6; version++ {
			doc := document(rkey, version, fmt.Sprintf(`{"count":%d}`, version))
			if random.IntN(3) == 0 {
				doc = deletion(rkey, version)
			}
			writes = append(writes, doc, doc)
			if last = version; doc.Body == nil {
				last = 0
			}
		}
		if last > 0 {
			want[key(rkey).String()] = last
		}
	}
	random.Shuffle(len(writes), func(i, j int) { writes[i], writes[j] = writes[j], writes[i] })
	for len(writes) > 0 {
		n := min(len(writes), 1+random.IntN(50))
		require.NoError(t, client.Write(t.Context(), writes[:n]))
		writes = writes[n:]
	}
	require.NotEmpty(t, want)
	require.Equal(t, want, scan(t, client))
	for uri, version := range want {
		require.Equal(t, map[string]any{"count": float64(version)}, source(t, client.Alias(collection), uri)["value"])
	}
}

func TestDeletionIsVersioned(t *testing.T) {
	t.Parallel()
	client, _ := open(t)
	steps := []struct {
		doc  search.Document
		want map[string]int64
	}{
		{deletion("a", 3), map[string]int64{}},                                // of nothing
		{document("a", 2, `{}`), map[string]int64{}},                          // stale after the deletion
		{document("a", 3, `{}`), map[string]int64{key("a").String(): 3}},      // hidden, then shown again
		{deletion("a", 2), map[string]int64{key("a").String(): 3}},            // stale deletion
		{deletion("a", 4), map[string]int64{}},                                //
		{document("a", 3, `{}`), map[string]int64{}},                          // stale write after deletion
		{document("a", 5, `{}`), map[string]int64{key("a").String(): 5}},      // created again
		{document("a", 5, `{"x":1}`), map[string]int64{key("a").String(): 5}}, // projected again
	}
	for i, step := range steps {
		require.NoError(t, client.Write(t.Context(), []search.Document{step.doc}), "step %d", i)
		require.Equal(t, step.want, scan(t, client), "step %d", i)
	}
	require.Equal(t, map[string]any{"x": 1.0}, source(t, client.Alias(collection), key("a").String())["value"])
}

// A deletion that comes to an index that is gone must not end in one that the server
// makes for it, under the name of the alias.
func TestDeletionMakesNoIndex(t *testing.T) {
	t.Parallel()
	client, cfg := open(t)
	require.NoError(t, client.Write(t.Context(), []search.Document{document("a", 1, `{}`)}))
	remove(t, client.Alias(collection))
	got := failures(t, client.Write(t.Context(), []search.Document{deletion("a", 2)}))
	require.Len(t, got, 1)
	require.True(t, got[0].Retryable, "%v", got[0].Err)
	require.Empty(t, indexes(t, cfg.Prefix))
}

// indexes are the names of all indexes under a prefix.
func indexes(t *testing.T, prefix string) []string {
	t.Helper()
	res, err := http.Get(searchtest.URL(t) + "/" + prefix + "-*?filter_path=*.settings.index.uuid")
	require.NoError(t, err)
	defer res.Body.Close()
	var found map[string]any
	require.NoError(t, json.NewDecoder(res.Body).Decode(&found))
	return slices.Sorted(maps.Keys(found))
}

// remove deletes the index behind an alias, without the client's knowledge.
func remove(t *testing.T, alias string) {
	t.Helper()
	for _, name := range indexes(t, alias) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, searchtest.URL(t)+"/"+name, nil)
		require.NoError(t, err)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode)
	}
}

func TestScanPagesThroughEverything(t *testing.T) {
	t.Parallel()
	client, _ := open(t)
	const n = 12_345 // more than two pages
	docs := make([]search.Document, n)
	for i := range docs {
		docs[i] = document(fmt.Sprint("r", i), int64(i+1), `{}`)
	}
	require.NoError(t, client.Write(t.Context(), docs))
	found := scan(t, client)
	require.Len(t, found, n)
	for _, doc := range docs {
		require.Equal(t, doc.Version, found[doc.Key.String()])
	}
	count, err := client.Count(t.Context(), collection)
	require.NoError(t, err)
	require.EqualValues(t, n, count)

	stop := errors.New("stop")
	require.ErrorIs(t, client.Scan(t.Context(), collection, func(record.Key, int64) error { return stop }), stop)
}

func TestLongNames(t *testing.T) {
	t.Parallel()
	client, _ := open(t)
	long := record.Key{DID: syntax.DID("did:web:" + strings.Repeat("a", 2040)), Collection: collection, Rkey: syntax.RecordKey(strings.Repeat("~", 512))}
	other := long
	other.Rkey = syntax.RecordKey(strings.Repeat("~", 511))
	docs := []search.Document{{Key: long, Version: 1, Body: json.RawMessage(`{}`)}, {Key: other, Version: 2, Body: json.RawMessage(`{}`)}}
	require.NoError(t, client.Write(t.Context(), docs))
	require.Equal(t, map[string]int64{long.String(): 1, other.String(): 2}, scan(t, client))
	require.NoError(t, client.Write(t.Context(), []search.Document{{Key: long, Version: 3}}))
	require.Equal(t, map[string]int64{other.String(): 2}, scan(t, client))

	longest := syntax.NSID(strings.Repeat("abcdefghi.", 25) + strings.Repeat("n", 63))
	require.LessOrEqual(t, len(client.Alias(longest)+"-12345678-write"), 255)
	_, err := client.Ensure(t.Context(), []search.Mapping{{Collection: longest}})
	require.NoError(t, err)
}

// The largest records that a lexicon accepts, as documents.
func TestRecordsOfAMegabyte(t *testing.T) {
	t.Parallel()
	client, _ := open(t)
	var layer strings.Builder
	layer.WriteString(`{"items":[{"label":"first","start":-1}`)
	for i := range 50_000 {
		fmt.Fprintf(&layer, `,{"label":"NOUN","start":%d}`, i)
	}
	layer.WriteString(`]}`)
	word := strings.Repeat("word ", 200_000)
	unbroken := strings.Repeat("x", 1_000_000)
	docs := []search.Document{
		document("layer", 1, layer.String()),
		document("words", 2, fmt.Sprintf(`{"text":%q}`, word)),
		document("unbroken", 3, fmt.Sprintf(`{"text":%q}`, unbroken)),
		document("keyword", 4, fmt.Sprintf(`{"kind":[%q,"short"]}`, strings.Repeat("k", 40_000))),
		document("wide", 5, fmt.Sprintf(`{"kind":%q}`, strings.Repeat("\U00010348", 10_000))),
	}
	for i := range 30 { // several requests
		docs = append(docs, document(fmt.Sprint("more", i), 6, fmt.Sprintf(`{"text":%q}`, word)))
	}
	require.NoError(t, client.Write(t.Context(), docs))
	require.Len(t, scan(t, client), len(docs))
	alias := client.Alias(collection)
	require.Equal(t, 1, hits(t, alias, `{"nested":{"path":"value.items","query":{"bool":{"must":[{"term":{"value.items.label":"NOUN"}},{"term":{"value.items.start":49999}}]}}}}`))
	require.Equal(t, 0, hits(t, alias, `{"nested":{"path":"value.items","query":{"bool":{"must":[{"term":{"value.items.label":"first"}},{"term":{"value.items.start":1}}]}}}}`))
	require.Equal(t, 31, hits(t, alias, `{"match":{"value.text":"word"}}`))
	require.Equal(t, 1, hits(t, alias, `{"term":{"value.kind":"short"}}`), "values beside one that is too long stay findable")
	require.Equal(t, 32, hits(t, alias, `{"exists":{"field":"value.text"}}`))
	require.Equal(t, unbroken, source(t, alias, key("unbroken").String())["value"].(map[string]any)["text"])
}

func TestHostileStrings(t *testing.T) {
	t.Parallel()
	client, _ := open(t)
	for i, text := range []string{
		"\x00", "a\x00b", `"\"`, "`;{}[]", "line\nline\r\n{\"delete\":{}}\n", "\u202eabc\u202c", "\u2028\u2029", "\ufeff", "\U0010ffff", "</script>", "",
	} {
		encoded, err := json.Marshal(map[string]string{"text": text, "kind": text})
		require.NoError(t, err)
		rkey := fmt.Sprint(i)
		require.NoError(t, client.Write(t.Context(), []search.Document{document(rkey, 1, string(encoded))}), "%q", text)
		value := source(t, client.Alias(collection), key(rkey).String())["value"]
		require.Equal(t, map[string]any{"text": text, "kind": text}, value)
		require.NoError(t, client.Refresh(t.Context(), collection))
		term, err := json.Marshal(map[string]any{"term": map[string]any{"value.kind": text}})
		require.NoError(t, err)
		require.Equal(t, 1, hits(t, client.Alias(collection), string(term)), "%q", text)
	}
}

func TestPingAndUnreachableServer(t *testing.T) {
	t.Parallel()
	client, _ := open(t)
	require.NoError(t, client.Ping(t.Context()))

	away := searchtest.Open(t, search.Config{URLs: []string{"http://127.0.0.1:1"}})
	require.Error(t, away.Ping(t.Context()))
	_, err := away.Ensure(t.Context(), []search.Mapping{mapping()})
	require.Error(t, err)
	got := failures(t, away.Write(t.Context(), []search.Document{document("a", 1, `{}`)}))
	require.Len(t, got, 1)
	require.True(t, got[0].Retryable, "a client that could not prepare its index may later")
}

func TestOpenRefusesWrongConfiguration(t *testing.T) {
	t.Parallel()
	for _, cfg := range []search.Config{
		{},
		{URLs: []string{"localhost:9200"}},
		{URLs: []string{"redis://localhost:9200"}},
		{URLs: []string{"http://localhost:9200"}, Prefix: "Layers"},
		{URLs: []string{"http://localhost:9200"}, Prefix: "*"},
	} {
		_, err := search.Open(cfg)
		require.Error(t, err, "%+v", cfg)
	}
	_, err := search.Open(search.Config{URLs: []string{"https://user:secret@%zz"}})
	require.NotContains(t, err.Error(), "secret")
}

func TestWriteOfNothing(t *testing.T) {
	t.Parallel()
	client, _ := open(t)
	require.NoError(t, client.Write(context.Background(), nil))
}

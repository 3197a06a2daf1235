package live_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/lexicon"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/appview/live"
	"github.com/layers-pub/layers-appview/internal/store"
)

func TestEventsComeAsTheyHappen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit(w.put(key(alice, expressions, "before")))
	first, second := w.serve(live.Config{}), w.serve(live.Config{})
	readers := []*reading{first.follow(""), first.follow(""), second.follow("")}
	k := key(alice, expressions, "one")
	w.commit(w.put(k))
	w.commit(w.put(k), w.put(key(bob, layers, "two")))
	w.commit(w.remove(k))
	want := []string{"create one", "update one", "create two", "delete one"}
	var seen [][]message
	for _, r := range readers {
		got := r.take(4)
		require.Equal(t, want, shorts(got))
		seen = append(seen, got)
	}
	require.Equal(t, seen[0], seen[1])
	require.Equal(t, seen[0], seen[2], "whichever process is asked")
	require.Equal(t, message{
		Kind: "record", Action: "create", URI: k.String(), CID: string(cid(2)), Collection: string(expressions), DID: string(alice),
		Cursor: seen[0][0].Cursor, Time: seen[0][0].Time,
	}, seen[0][0])
	require.Empty(t, seen[0][3].CID)
	at, err := time.Parse(time.RFC3339Nano, seen[0][0].Time)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), at, time.Hour)
}

// TestNothingIsLostOrRepeatedAtAResume takes a stream up again behind each event, at
// the other process, while more happens.
func TestNothingIsLostOrRepeatedAtAResume(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	processes := []*process{w.serve(live.Config{Kept: 7}), w.serve(live.Config{Kept: 3})}
	reader := processes[0].follow("")
	begin := reader.lastID
	reader.body.Close()
	var want []string
	for i := range 40 {
		var changes []store.Change
		for j := range 1 + i%5 {
			rkey := fmt.Sprintf("r%d-%d", i, j)
			changes, want = append(changes, w.put(key(alice, expressions, rkey))), append(want, "create "+rkey)
		}
		w.commit(changes...)
	}
	var got []string
	at := begin
	for i := 0; len(got) < len(want); i++ { // each connection takes a few and breaks off
		var r *reading
		cursor := strconv.FormatInt(at, 10)
		if i%2 == 0 {
			r = processes[i%2].follow("cursor=" + cursor)
		} else { // as a browser does: the address is still that of the beginning
			r = processes[i%2].follow("cursor="+strconv.FormatInt(begin, 10), "Last-Event-ID", cursor)
		}
		got = append(got, shorts(r.take(min(1+i%9, len(want)-len(got))))...)
		at = r.lastID
		r.body.Close()
	}
	require.Equal(t, want, got)
	for _, p := range processes {
		require.Equal(t, want, shorts(p.present(url.Values{"cursor": {strconv.FormatInt(begin, 10)}})))
		require.Empty(t, p.present(url.Values{"cursor": {strconv.FormatInt(at, 10)}}))
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.serve(live.Config{})
	sentence, other := key(alice, expressions, "sentence"), key(alice, expressions, "other")
	layer := key(bob, layers, "layer")
	w.commit(w.put(sentence), w.put(other))
	w.commit(w.put(layer, sentence.String()))
	w.commit(w.put(layer, other.String())) // refers to the sentence no more
	w.commit(w.put(key(bob, expressions, "reply"), other.String()))
	w.commit(w.remove(layer))
	w.status(alice, "deactivated")
	w.status(alice, "active")
	hidden := []string{"did:plc:a false deactivated", "did:plc:a true active"}
	for name, test := range map[string]struct {
		params url.Values
		want   []string
	}{
		"everything":      {url.Values{}, append([]string{"create sentence", "create other", "create layer", "update layer", "create reply", "delete layer"}, hidden...)},
		"collection":      {url.Values{"collection": {string(layers)}}, append([]string{"create layer", "update layer", "delete layer"}, hidden...)},
		"two collections": {url.Values{"collection": {string(layers), string(expressions)}}, append([]string{"create sentence", "create other", "create layer", "update layer", "create reply", "delete layer"}, hidden...)},
		"repository":      {url.Values{"repo": {string(bob)}}, []string{"create layer", "update layer", "create reply", "delete layer"}},
		"both":            {url.Values{"repo": {string(bob)}, "collection": {string(expressions)}}, []string{"create reply"}},
		"target":          {url.Values{"target": {sentence.String()}}, append([]string{"create layer", "update layer"}, hidden...)},
		"other target":    {url.Values{"target": {other.String()}, "repo": {string(bob)}}, []string{"update layer", "create reply", "delete layer"}},
		"no such target":  {url.Values{"target": {"https://example.org/"}, "repo": {string(bob)}}, nil},
	} {
		test.params.Set("cursor", "0")
		got := p.present(test.params)
		if len(got) > 0 && got[0].Name == "OutdatedCursor" {
			got = got[1:]
		}
		require.Equal(t, test.want, shorts(got), name)
	}
}

func TestHiddenAccounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.serve(live.Config{})
	following := p.follow("")
	begin := url.Values{"cursor": {strconv.FormatInt(following.lastID, 10)}}
	w.commit(w.put(key(alice, expressions, "a")), w.put(key(bob, expressions, "b")))
	require.Equal(t, []string{"create a", "create b"}, shorts(following.take(2)))
	w.status(alice, "takendown")
	w.commit(w.put(key(alice, expressions, "unseen")))
	w.commit(w.put(key(bob, expressions, "c")))
	require.Equal(t, []string{"did:plc:a false takendown", "create c"}, shorts(following.take(2)))

	// Also whoever comes later, whether what happened is still in memory or not.
	want := []string{"create b", "did:plc:a false takendown", "create c"}
	require.Equal(t, want, shorts(p.follow(begin.Encode()).take(3)))
	require.Equal(t, want, shorts(w.serve(live.Config{}).follow(begin.Encode()).take(3)))

	w.status(alice, "active")
	require.Equal(t, []string{"did:plc:a true active"}, shorts(following.take(1)))
}

func TestASlowReaderIsToldAndDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.serve(live.Config{Kept: 50, Lag: 2000, SendTime: time.Hour}) // it is to fall behind first, however slowly
	slow, quick := p.follow(""), p.follow("")
	// More than the system's buffers hold, so that sending to who does not read stands still.
	text := make([]byte, 1500)
	for i := range text {
		text[i] = 'x'
	}
	n := 0
	for range 40 {
		var changes []store.Change
		for range 500 {
			n++
			changes = append(changes, w.put(key(alice, layers, fmt.Sprintf("%s%08d", text[:480], n))))
		}
		w.commit(changes...)
		quick.take(500)
	}
	var got int
	for {
		m, err := slow.next()
		require.NoError(t, err, "after %d of %d events", got, n)
		if m.Kind == "error" {
			require.Equal(t, "ConsumerTooSlow", m.Error)
			break
		}
		got++
		require.Equal(t, fmt.Sprintf("create %s%08d", text[:480], got), m.short(), "up to then, nothing is missing")
	}
	require.Less(t, got, n)
	_, err := slow.next()
	require.ErrorIs(t, err, io.EOF)

	// It may go on where it was.
	again := p.follow("cursor=" + strconv.FormatInt(slow.lastID, 10))
	require.Equal(t, fmt.Sprintf("create %s%08d", text[:480], got+1), again.take(1)[0].short())
}

func TestCursorsThatAreOutdatedOrFromElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.serve(live.Config{FutureWait: 30 * time.Millisecond})
	following := p.follow("")
	begin := strconv.FormatInt(following.lastID, 10)
	for i := range 5 {
		w.commit(w.put(key(alice, expressions, fmt.Sprint(i))))
	}
	cursors := following.take(5)
	require.NoError(t, store.NewEventLog(w.Pool).Trim(t.Context(), time.Hour, cursors[4].Cursor-cursors[2].Cursor))
	got := p.present(url.Values{"cursor": {begin}})
	require.Equal(t, []string{"OutdatedCursor", "create 2", "create 3", "create 4"}, shorts(got))
	require.Equal(t, cursors[1].Cursor, got[0].Cursor)
	require.Equal(t, []string{"OutdatedCursor", "create 2"}, shorts(w.serve(live.Config{}).follow("cursor="+begin).take(2)))
	require.Equal(t, []string{"create 2", "create 3"}, shorts(p.follow("cursor="+strconv.FormatInt(cursors[1].Cursor, 10)).take(2)), "has missed nothing")

	for params, want := range map[string]string{
		"cursor=" + strconv.FormatInt(cursors[4].Cursor+1000, 10): "FutureCursor",
		"cursor=-1":         "InvalidRequest",
		"cursor=soon":       "InvalidRequest",
		"collection=layers": "InvalidRequest",
		"repo=nobody":       "InvalidRequest",
		"repo=nobody.test":  "InvalidRequest",
		"target=sentence":   "InvalidRequest",
	} {
		response := p.get("/events?" + params)
		var answer struct{ Error string }
		require.NoError(t, json.NewDecoder(response.Body).Decode(&answer))
		require.Equal(t, http.StatusBadRequest, response.StatusCode, params)
		require.Equal(t, want, answer.Error, params)
	}
}

// TestTheDatabaseIsRestored has followers, those who connect and those who are there,
// hear of it if they have seen what was lost, and of nothing otherwise.
func TestTheDatabaseIsRestored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.serve(live.Config{})
	following := p.follow("")
	w.commit(w.put(key(alice, expressions, "kept")))
	kept := following.take(1)[0].Cursor
	r, err := store.Recover(t.Context(), w.Pool, "a test")
	require.NoError(t, err)
	w.commit(w.put(key(alice, expressions, "new")))

	lost := strconv.FormatInt(r.Reached+1, 10)
	require.Equal(t, []string{"OutdatedCursor", "create new"}, shorts(p.present(url.Values{"cursor": {lost}})))
	require.Equal(t, []string{"OutdatedCursor", "create new"}, shorts(p.follow("cursor="+lost).take(2)))
	require.Equal(t, []string{"OutdatedCursor", "create new"}, shorts(w.serve(live.Config{}).follow("cursor="+lost).take(2)))
	require.Equal(t, []string{"create new"}, shorts(p.follow("cursor="+strconv.FormatInt(kept, 10)).take(1)), "has seen nothing that was lost")
}

func TestACursorThatAReplicaHasNotReachedYet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.serve(live.Config{FutureWait: patience})
	at := p.follow("").lastID
	done := make(chan []message)
	go func() { done <- p.follow("cursor=" + strconv.FormatInt(at+2, 10)).take(1) }()
	for i := range 3 {
		w.commit(w.put(key(alice, expressions, fmt.Sprint(i))))
	}
	require.Equal(t, at+3, (<-done)[0].Cursor)
}

func TestValues(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.serve(live.Config{})
	small, large, changed := key(alice, expressions, "small"), key(alice, expressions, "large"), key(alice, expressions, "changed")
	c := w.put(large)
	text := make([]byte, 300<<10)
	for i := range text {
		text[i] = 'x'
	}
	c.JSON, _ = json.Marshal(map[string]string{"text": string(text)})
	w.commit(w.put(small), c, w.put(changed))
	w.commit(w.put(changed), w.remove(key(alice, expressions, "none")))
	got := p.present(url.Values{"cursor": {"0"}, "include": {"value"}})
	require.Equal(t, []string{"create small", "create large", "create changed", "update changed"}, shorts(got[len(got)-4:]))
	got = got[len(got)-4:]
	require.JSONEq(t, `{"$type":"pub.layers.expression.expression","n":2}`, string(got[0].Value))
	require.Nil(t, got[1].Value, "too large")
	require.Nil(t, got[2].Value, "not that record any more")
	require.JSONEq(t, `{"$type":"pub.layers.expression.expression","n":4}`, string(got[3].Value))
}

func TestTheEndOfAProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, other := w.serve(live.Config{}), w.serve(live.Config{})
	r := p.follow("")
	w.commit(w.put(key(alice, expressions, "one")))
	require.Equal(t, []string{"create one"}, shorts(r.take(1)))
	p.Drain(t.Context())
	told := r.rest()
	require.Equal(t, []string{"GoingAway"}, shorts(told))
	require.Equal(t, http.StatusServiceUnavailable, p.get("/events").StatusCode)
	w.commit(w.put(key(alice, expressions, "two")))
	require.Equal(t, []string{"create two"}, shorts(other.follow("cursor="+strconv.FormatInt(told[0].Cursor, 10)).take(1)))
}

func TestHowManyMayFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.serve(live.Config{PerClient: 2})
	one := p.follow("")
	p.follow("")
	response := p.get("/events")
	require.Equal(t, http.StatusTooManyRequests, response.StatusCode)
	require.NotEmpty(t, response.Header.Get("Retry-After"))
	one.body.Close()
	require.Eventually(t, func() bool { return p.get("/events").StatusCode == http.StatusOK }, patience, 10*time.Millisecond)

	full := w.serve(live.Config{Followers: 1})
	full.follow("")
	require.Equal(t, http.StatusServiceUnavailable, full.get("/events").StatusCode)
}

func TestTheLexiconHasWhatIsServed(t *testing.T) {
	t.Parallel()
	var file lexicon.SchemaFile
	require.NoError(t, json.Unmarshal(live.Lexicon, &file))
	require.Equal(t, live.Method, file.ID)
	main, ok := file.Defs["main"].Inner.(lexicon.SchemaSubscription)
	require.True(t, ok)
	known := lexicon.NewBaseCatalog()
	require.NoError(t, known.AddSchemaFile(file), "all of it is as lexicons are")
	require.Len(t, main.Parameters.Properties, len(live.SocketParams()))
	for _, p := range live.SocketParams() {
		property := main.Parameters.Properties[p.Name].Inner
		description := ""
		switch property := property.(type) {
		case lexicon.SchemaArray:
			require.True(t, p.Repeated, p.Name)
			description = *property.Description
		case lexicon.SchemaString:
			require.Equal(t, p.Enum, property.Enum, p.Name)
			description = *property.Description
		case lexicon.SchemaInteger:
			require.EqualValues(t, "integer", p.Type)
			description = *property.Description
		}
		require.Equal(t, p.Description, description)
	}
}

package cache

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

const (
	things syntax.NSID = "com.example.thing"
	others syntax.NSID = "com.example.other"
	alice  syntax.DID  = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
	bob    syntax.DID  = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"
)

// patience is for what happens soon, on a machine that does much else.
const patience = time.Minute

// world is a database with a writer, and caches over it.
type world struct {
	t       *testing.T
	db      *storetest.Database
	writer  *store.Writer
	reader  *store.Reader
	redis   string // URL
	version string // of the program: keeps the tests apart in one Redis
	seq     int64
}

func newWorld(t *testing.T, routes store.Routes) *world {
	t.Helper()
	redisURL := os.Getenv("LAYERS_TEST_REDIS_URL")
	if redisURL == "" {
		t.Fatal("LAYERS_TEST_REDIS_URL is not set: run `make test`, which starts the stores that tests need")
	}
	w := &world{t: t, redis: redisURL, version: rand.Text()}
	w.db = storetest.New(t, store.Partition{Collection: things}, store.Partition{Collection: others})
	w.writer, w.reader = w.db.Writer(t, routes), store.NewReader(w.db.Pool)
	w.apply(nil, store.RepoUpdate{DID: alice}, store.RepoUpdate{DID: bob})
	return w
}

func (w *world) apply(changes []store.Change, repos ...store.RepoUpdate) {
	w.t.Helper()
	require.NoError(w.t, w.writer.Apply(w.t.Context(), store.Batch{Repos: repos, Changes: changes}))
}

// set makes a record what it is from now on; an empty text deletes it.
func (w *world) set(collection syntax.NSID, text string) {
	w.t.Helper()
	w.seq++
	c := store.Change{
		Action: record.Update, Key: keyOf(collection), Rev: syntax.NewTIDFromInteger(uint64(w.seq)),
		CID: syntax.CID(fmt.Sprint("bafy", w.seq)), JSON: json.RawMessage(`"` + text + `"`),
	}
	if text == "" {
		c = store.Change{Action: record.Delete, Key: c.Key, Rev: c.Rev}
	}
	w.apply([]store.Change{c})
}

func (w *world) hide(hidden bool) {
	w.t.Helper()
	active, status := !hidden, "active"
	if hidden {
		status = "takendown"
	}
	w.apply(nil, store.RepoUpdate{DID: alice, Active: &active, Status: &status})
}

func keyOf(collection syntax.NSID) record.Key {
	return record.Key{DID: alice, Collection: collection, Rkey: "a"}
}

// asker is a cache, and a question that it answers.
type asker struct {
	*Cache
	w    *world
	q    Question
	made atomic.Int64 // how often the answer was worked out
	// between is called after the store was read and before the answer is given.
	between func(ctx context.Context, text string)
}

func (w *world) asker(redisURL string, source Source) *asker {
	w.t.Helper()
	c, err := New(Config{
		RedisURL: redisURL, Version: w.version, Changes: store.NewChanges(w.db.Pool), Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = c.Close() })
	if c.kept != nil {
		c.kept.redis.Within(patience) // an answer that Redis did not take in time would be worked out once more
	}
	return &asker{Cache: c, w: w, q: Question{Key: "thing", Route: "test", For: time.Hour, Source: source}}
}

// ask returns what the record is, or "nothing".
func (a *asker) ask(ctx context.Context) (string, error) {
	body, err := a.Do(ctx, a.q, func(ctx context.Context) (Answer, error) {
		a.made.Add(1)
		found, err := a.w.reader.Load(ctx, []record.Key{keyOf(things)})
		if err != nil {
			return Answer{}, err
		}
		text := "nothing"
		if r, ok := found[keyOf(things)]; ok {
			text = strings.Trim(string(r.Value), `"`)
		}
		if a.between != nil {
			a.between(ctx, text)
		}
		return Answer{Body: []byte(text)}, ctx.Err()
	})
	return string(body), err
}

func (a *asker) sees(text string, made int64) {
	a.w.t.Helper()
	got, err := a.ask(a.w.t.Context())
	require.NoError(a.w.t, err)
	require.Equal(a.w.t, text, got)
	require.Equal(a.w.t, made, a.made.Load(), "how often it was worked out")
}

// settle waits until what was worked out last is kept.
func (a *asker) settle() {
	a.w.t.Helper()
	client := a.w.client()
	require.Eventually(a.w.t, func() bool {
		n, err := client.Exists(a.w.t.Context(), a.kept.name(a.q.Key)).Result()
		return err == nil && n == 1
	}, patience, time.Millisecond)
}

// label is that of what is kept; 0 for nothing.
func (a *asker) label() int64 { return a.kept.get(a.w.t.Context(), a.q.Key).label }

func (w *world) client() *redis.Client {
	options, err := redis.ParseURL(w.redis)
	require.NoError(w.t, err)
	client := redis.NewClient(options)
	w.t.Cleanup(func() { _ = client.Close() })
	return client
}

// through is a URL of Redis by way of another address.
func through(t *testing.T, redisURL, addr string) string {
	t.Helper()
	u, err := url.Parse(redisURL)
	require.NoError(t, err)
	u.Host = addr
	return u.String()
}

package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/test/rig"
)

// bound is how long any answer may take: the time that a request has for the stores, and
// some for a machine that does much else.
const (
	requestTime = 5 * time.Second
	bound       = 4 * requestTime
)

// load asks all questions of all processes, again and again, and judges each answer.
type load struct {
	questions []question
	stop      context.CancelFunc
	running   sync.WaitGroup

	answers, unavailable, degraded, lost, expired atomic.Int64
	slowest                                       atomic.Int64 // nanoseconds

	mu     sync.Mutex
	wrong  []string
	killed map[string]bool // processes that may refuse connections
}

func (l *load) start(t *testing.T, bases []string, workers int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l.stop, l.killed = cancel, map[string]bool{}
	for worker := range workers {
		l.running.Go(func() {
			c := newClient("")
			for n := worker; ctx.Err() == nil; n++ {
				c.base = bases[n%len(bases)]
				l.judge(c, &l.questions[(n/len(bases))%len(l.questions)])
			}
		})
	}
	t.Cleanup(l.end)
}

func (l *load) end() {
	l.stop()
	l.running.Wait()
}

// judge asks one question. Right answers, whoever gave them, and 503 are in order; so is
// a lost connection to a process that is being killed.
func (l *load) judge(c *client, q *question) {
	began := time.Now()
	got, degraded, err := c.ask(q)
	if expired(err) { // the walk was in a store that went away between two pages: begin anew, as the answer says
		l.expired.Add(1)
		began = time.Now()
		got, degraded, err = c.ask(q)
	}
	for took := int64(time.Since(began)); ; {
		slowest := l.slowest.Load()
		if took <= slowest || l.slowest.CompareAndSwap(slowest, took) {
			break
		}
	}
	var no *refused
	switch {
	case err == nil && slices.Equal(got, q.want):
		l.answers.Add(1)
		if degraded {
			l.degraded.Add(1)
		}
	case err == nil:
		l.note("%s: %d lines, expected %d: %.200v", q.name, len(got), len(q.want), got)
	case expired(err):
		l.expired.Add(1)
	case errors.As(err, &no) && no.status == http.StatusServiceUnavailable:
		l.unavailable.Add(1)
	case errors.As(err, &no):
		l.note("%s: %v", q.name, err)
	case l.mayBeGone(c.base):
		l.lost.Add(1)
	default:
		l.note("%s: %v", q.name, err)
	}
}

func expired(err error) bool {
	var no *refused
	return errors.As(err, &no) && no.status == http.StatusBadRequest && strings.Contains(no.body, `"CursorExpired"`)
}

func (l *load) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) < 20 {
		l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
	}
}

func (l *load) mayBeGone(base string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.killed[base]
}

func (l *load) gone(base string, gone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.killed[base] = gone
}

// more waits until so many more answers of a kind have come.
func (l *load) more(t *testing.T, what string, counter *atomic.Int64, n int64) {
	t.Helper()
	begun := counter.Load()
	rig.Eventually(t, fmt.Sprintf("%d more %s", n, what), func() (bool, string) {
		got := counter.Load() - begun
		return got >= n, fmt.Sprint(got)
	})
}

// TestFaultsUnderLoad kills one of two API processes, and takes Redis, Elasticsearch and
// Neo4j away in turn, while both are asked all the time: one that may fall back on
// PostgreSQL and keeps answers in Redis, and one that does neither.
func TestFaultsUnderLoad(t *testing.T) {
	w := newWorld(t)
	d := rig.Deploy(t, rig.OpenStores(t), w.upstream(), "LAYERS_SEARCH_FALLBACK=true", "LAYERS_GRAPH_FALLBACK=true",
		fmt.Sprintf("LAYERS_REQUEST_TIMEOUT=%s", requestTime))
	ix := d.Indexer()
	d.Reach(w.LastSeq(), ix)
	d.Settle(ix)
	d.Run("stats", "refresh")
	strict := []string{"LAYERS_SEARCH_FALLBACK=false", "LAYERS_GRAPH_FALLBACK=false", "LAYERS_CACHE=false"}
	address := rig.FreeAddress(t)
	one, process := d.Replica(address, strict...)
	two, _ := d.Replica(rig.FreeAddress(t))

	l := &load{questions: questions(w.truth())}
	rig.Eventually(t, "all answers to be right", func() (bool, string) { return same(newClient(two), l.questions) }, ix)
	l.start(t, []string{one, two}, 6)
	l.more(t, "right answers", &l.answers, 200)

	l.gone(one, true)
	process.Kill()
	l.more(t, "connections refused by who was killed", &l.lost, 5)
	l.more(t, "right answers of the other", &l.answers, 50)
	d.Replica(address, strict...)
	l.gone(one, false)

	for _, store := range []struct {
		name  string
		proxy *rig.Proxy
		seen  *atomic.Int64 // what shows that it is missed
	}{
		{"Redis", d.Proxies.Redis, nil},
		{"Elasticsearch", d.Proxies.Elasticsearch, &l.degraded},
		{"Neo4j", d.Proxies.Neo4j, &l.degraded},
	} {
		broken := store.proxy.Severed.Load() + store.proxy.Refused.Load()
		refusals := l.unavailable.Load()
		store.proxy.Cut()
		l.more(t, "right answers without "+store.name, &l.answers, 100)
		if store.seen != nil {
			require.NoError(t, d.Redis.FlushDB(t.Context()).Err()) // what is kept there would be right for a minute
			l.more(t, "answers that PostgreSQL gave in its place", store.seen, 5)
			require.Greater(t, l.unavailable.Load(), refusals, "%s: who has no other way says so", store.name)
		}
		require.Greater(t, store.proxy.Severed.Load()+store.proxy.Refused.Load(), broken, "%s was not away", store.name)
		store.proxy.Restore()
		l.more(t, "right answers with "+store.name+" again", &l.answers, 50)
	}
	rig.Eventually(t, "everything to be answered by whom it should be", func() (bool, string) {
		for i := range l.questions {
			for _, base := range []string{one, two} {
				if _, degraded, err := newClient(base).ask(&l.questions[i]); err != nil || degraded {
					return false, l.questions[i].name
				}
			}
		}
		return true, ""
	}, ix)
	l.end()
	require.Empty(t, l.wrong)
	require.Less(t, time.Duration(l.slowest.Load()), bound, "no answer was waited for without end")
	t.Logf("%d right answers (%d by PostgreSQL in another's place), %d times 503, %d connections lost, %d walks begun anew, the slowest %s",
		l.answers.Load(), l.degraded.Load(), l.unavailable.Load(), l.lost.Load(), l.expired.Load(), time.Duration(l.slowest.Load()).Round(time.Millisecond))
	ix.Stop()
}

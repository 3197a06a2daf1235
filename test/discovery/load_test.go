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

	"github.com/layers-pub/layers-appview/test/rig"
)

// bound is how long any page of an answer may take: the time that a request has for the
// stores, and some for a machine that does much else.
const (
	requestTime = 5 * time.Second
	bound       = 4 * requestTime
	// Between two questions of one who asks.
	askEvery  = 50 * time.Millisecond
	askSeldom = 200 * time.Millisecond // while a server starts, which is work
)

// load asks all questions of all processes, again and again, and judges each answer.
type load struct {
	questions []question
	strict    string // the process that has no other way, and keeps no answers
	stop      context.CancelFunc
	running   sync.WaitGroup

	answers, unavailable, degraded, lost, expired atomic.Int64
	slowest                                       atomic.Int64  // page since the last figures, in nanoseconds
	worst                                         time.Duration // that any page took
	pause                                         atomic.Int64  // nanoseconds between two questions

	away atomic.Pointer[string] // the store that is not there for certain; another pointer each time

	mu     sync.Mutex
	wrong  []string
	killed map[string]bool // processes that may refuse connections
}

func (l *load) start(t *testing.T, bases []string, workers int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l.stop, l.killed = cancel, map[string]bool{}
	l.pause.Store(int64(askEvery))
	for worker := range workers {
		l.running.Go(func() {
			c := newClient("")
			c.took = l.took
			for n := worker; ctx.Err() == nil; n++ {
				c.base = bases[n%len(bases)]
				l.judge(c, &l.questions[(n/len(bases))%len(l.questions)])
				time.Sleep(time.Duration(l.pause.Load()))
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
	away := l.away.Load()
	got, degraded, err := c.ask(q)
	if expired(err) { // the walk was in a store that went away between two pages: begin anew, as the answer says
		l.expired.Add(1)
		got, degraded, err = c.ask(q)
	}
	if l.away.Load() != away {
		away = nil // who it was that answered cannot be told
	}
	var no *refused
	switch {
	case err == nil && !slices.Equal(got, q.want):
		l.note("%s: %d lines, expected %d: %.200v", q.name, len(got), len(q.want), got)
	case err == nil:
		l.answers.Add(1)
		if degraded {
			l.degraded.Add(1)
		}
		if away != nil {
			l.judgeMark(c, q, degraded, *away)
		}
	case expired(err):
		l.expired.Add(1)
	case errors.As(err, &no) && no.status == http.StatusServiceUnavailable && no.after != "":
		l.unavailable.Add(1)
	case errors.As(err, &no):
		l.note("%s: %v (Retry-After: %q)", q.name, err, no.after)
	case l.mayBeGone(c.base):
		l.lost.Add(1)
	default:
		l.note("%s: %v", q.name, err)
	}
}

// judgeMark judges whether a right answer says that it is not by whom it should be,
// where that cannot be.
func (l *load) judgeMark(c *client, q *question, degraded bool, away string) {
	switch {
	case q.by == away && c.base == l.strict:
		l.note("%s: is answered without %s by who has no other way", q.name, away)
	case q.by == away && !degraded:
		l.note("%s: is answered without %s and not marked", q.name, away)
	}
}

// took takes down how long a page took.
func (l *load) took(d time.Duration) {
	for {
		slowest := l.slowest.Load()
		if int64(d) <= slowest || l.slowest.CompareAndSwap(slowest, int64(d)) {
			return
		}
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

// figures are what came of the questions so far; the slowest page, since they were asked for last.
type figures struct {
	answers, degraded, unavailable, expired int64
	slowest                                 time.Duration
}

func (l *load) figures() figures {
	slowest := time.Duration(l.slowest.Swap(0)).Round(time.Millisecond)
	l.worst = max(l.worst, slowest)
	return figures{
		answers: l.answers.Load(), degraded: l.degraded.Load(), unavailable: l.unavailable.Load(), expired: l.expired.Load(),
		slowest: slowest,
	}
}

func (f figures) since(before figures) string {
	return fmt.Sprintf("%d right answers (%d by PostgreSQL in another's place), %d times 503, %d walks begun anew, the slowest page %s",
		f.answers-before.answers, f.degraded-before.degraded, f.unavailable-before.unavailable, f.expired-before.expired, f.slowest)
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

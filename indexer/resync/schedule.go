package resync

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/store"
)

const (
	window     = 1024 // repositories in memory: being looked up, waiting, or being fetched
	hostWindow = 256  // of them waiting for one host
	lookups    = 16   // identities looked up at once
	pollSlowly = 30 * time.Second

	// How long a repository is put off whose host has enough to do already.
	overflowLeast, overflowMost = 30 * time.Second, 5 * time.Minute
)

// job is a repository that is due, and the host that its account names.
type job struct {
	store.Due
	pds  string
	err  error // why no host is known
	host string
}

// schedule decides what is fetched next. A host's repositories wait for one another
// and not for those of others: each host has a queue, the queues take turns, and of
// each no more are fetched at once than the host bears. What does not fit into a
// queue is put off in the database, so that it is not in the way either.
type schedule struct {
	*Resync
	line Line

	unrouted, routed chan job
	over             chan job

	known   map[syntax.DID]bool
	queues  map[string][]job
	turns   []string // hosts with a queue
	queued  int
	running map[string]int // by host
	busy    int

	poll     time.Time // when the queue in the database is looked at next
	interval time.Duration
}

func newSchedule(r *Resync, line Line) *schedule {
	return &schedule{
		Resync: r, line: line,
		unrouted: make(chan job, window), routed: make(chan job, window), over: make(chan job, r.cfg.Concurrency),
		known: map[syntax.DID]bool{}, queues: map[string][]job{}, running: map[string]int{}, interval: r.cfg.PollEvery,
	}
}

func (s *schedule) run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range lookups {
		group.Go(func() { s.route(ctx) })
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.start(ctx, &group)
		s.fill(ctx)
		running.Set(float64(s.busy))
		waiting.Set(float64(s.queued))
		timer.Reset(time.Until(s.poll))
		select {
		case j := <-s.routed:
			s.enqueue(ctx, j)
		case j := <-s.over:
			s.finished(j)
		case <-timer.C:
		case <-ctx.Done():
			running.Set(0)
			waiting.Set(0)
			return ctx.Err()
		}
	}
}

// start begins what may begin, a host at a time.
func (s *schedule) start(ctx context.Context, group *sync.WaitGroup) {
	for passed := 0; s.busy < s.cfg.Concurrency && passed < len(s.turns); {
		host := s.turns[0]
		s.turns = s.turns[1:]
		if s.running[host] >= s.cfg.PerHost {
			s.turns = append(s.turns, host)
			passed++
			continue
		}
		queue := s.queues[host]
		j := queue[0]
		if len(queue) > 1 {
			s.queues[host], s.turns = queue[1:], append(s.turns, host)
		} else {
			delete(s.queues, host)
		}
		passed = 0
		s.queued--
		s.busy++
		s.running[host]++
		group.Go(func() {
			s.do(ctx, j)
			s.over <- j
		})
	}
}

func (s *schedule) finished(j job) {
	delete(s.known, j.DID)
	s.busy--
	if s.running[j.host]--; s.running[j.host] == 0 {
		delete(s.running, j.host)
	}
	if s.queued == 0 {
		s.poll = time.Time{} // nothing is left to do here
	}
}

// fill looks at the queue in the database when it is time to.
func (s *schedule) fill(ctx context.Context) {
	if time.Now().Before(s.poll) {
		return
	}
	s.poll = time.Now().Add(s.interval)
	if s.interval = 2 * s.interval; s.interval > pollSlowly || s.queued == 0 {
		s.interval = s.cfg.PollEvery
	}
	room := window - len(s.known)
	if room < window/4 {
		return
	}
	except := make([]syntax.DID, 0, len(s.known))
	for did := range s.known {
		except = append(except, did)
	}
	due, err := s.cfg.Queue.Due(ctx, room, except)
	if err != nil {
		if ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "reading which repositories are due failed", "error", err)
		}
		return
	}
	for _, d := range due {
		s.known[d.DID] = true
		s.unrouted <- job{Due: d} // there is room: its capacity is that of the window
	}
}

// route finds out which hosts repositories are at.
func (s *schedule) route(ctx context.Context) {
	for {
		select {
		case j := <-s.unrouted:
			s.address(ctx, &j)
			s.routed <- j
		case <-ctx.Done():
			return
		}
	}
}

func (s *schedule) address(ctx context.Context, j *job) {
	if j.Repo.Status == store.StatusDeleted {
		return // needs no host
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.AnswerTime)
	defer cancel()
	account, err := s.cfg.Identities.LookupDID(ctx, j.DID)
	if err == nil && account.PDSEndpoint() == "" {
		err = errText("its document names no host for the repository")
	}
	if err != nil {
		_ = s.cfg.Identities.Purge(ctx, j.DID.AtIdentifier()) // failures are kept for a while, too
		j.err = err
		return
	}
	j.pds = account.PDSEndpoint()
	j.host = hostOf(j.pds)
}

func (s *schedule) enqueue(ctx context.Context, j job) {
	queue, ok := s.queues[j.host]
	if len(queue) >= hostWindow {
		s.delay(ctx, j, time.Now().Add(overflowLeast+rand.N(overflowMost-overflowLeast)))
		delete(s.known, j.DID)
		return
	}
	if !ok {
		s.turns = append(s.turns, j.host)
		s.interval = s.cfg.PollEvery
	}
	s.queues[j.host] = append(slices.Clip(queue), j)
	s.queued++
}

func (s *schedule) delay(ctx context.Context, j job, until time.Time) {
	if err := s.cfg.Queue.Delay(ctx, j.DID, until); err != nil && ctx.Err() == nil {
		s.cfg.Logger.WarnContext(ctx, "putting a repository off failed", "did", j.DID, "error", err)
	}
}

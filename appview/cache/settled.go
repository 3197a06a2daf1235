package cache

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// visibleAfter is how long a projection may take to show what has been written to it.
// Elasticsearch shows what it has taken at its next refresh, each second by default.
var visibleAfter = map[record.Target]time.Duration{record.Search: 3 * time.Second}

const (
	observeEvery = 100 * time.Millisecond
	observedMost = 128 // observations kept; those of twelve seconds
)

// settledness remembers up to which version projections had everything.
type settledness struct {
	changes changes
	now     func() time.Time

	mu   sync.Mutex
	seen map[record.Target][]observation // oldest first
}

// observation says that a projection had everything up to a version, of some collections.
type observation struct {
	at      time.Time
	version int64
	settled func(syntax.NSID) bool
	every   bool
}

func (o *observation) of(collections []syntax.NSID) bool {
	if collections == nil || o.every {
		return o.every
	}
	return !slices.ContainsFunc(collections, func(c syntax.NSID) bool { return !o.settled(c) })
}

// label is the version up to which whoever asks a projection from now on sees
// everything of the collections.
func (s *settledness) label(ctx context.Context, of Source, before store.Versions) (int64, bool) {
	s.observe(ctx, of.Projection, before, s.now())
	begin := s.now() // of the question
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range slices.Backward(s.seen[of.Projection]) {
		if begin.Sub(o.at) >= visibleAfter[of.Projection] && o.of(of.Collections) {
			return o.version, true
		}
	}
	return 0, false
}

// observe asks how far the projection has come, unless somebody did so just now. What
// it has is judged by a version from before the question.
func (s *settledness) observe(ctx context.Context, target record.Target, before store.Versions, at time.Time) {
	s.mu.Lock()
	seen := s.seen[target]
	recent := len(seen) > 0 && at.Sub(seen[len(seen)-1].at) < observeEvery && seen[len(seen)-1].version == before.Clock
	s.mu.Unlock()
	if recent {
		return
	}
	settled, every, err := s.changes.Settled(ctx, target)
	if err != nil {
		return // then the answer is not kept
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[record.Target][]observation{}
	}
	seen = s.seen[target]
	seen = append(seen, observation{at: s.now(), version: before.Clock, settled: settled, every: every})
	s.seen[target] = seen[max(0, len(seen)-observedMost):]
}

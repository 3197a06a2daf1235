package backfill

import (
	"context"
	"slices"
	"time"

	"github.com/layers-pub/layers-appview/internal/store"
)

// Progress is how far finding and fetching repositories has come, at one moment.
type Progress struct {
	store.Progress
	Searches []store.Discovery
	Fetched  int           // repositories that became whole
	Span     time.Duration // within this time
}

// Measure asks the store for the progress, and what was fetched within a span.
func Measure(ctx context.Context, from *store.Resyncs, span time.Duration) (p Progress, err error) {
	p.Span = span
	if p.Searches, err = from.Discoveries(ctx); err != nil {
		return p, err
	}
	if p.Fetched, err = from.Completed(ctx, span); err != nil {
		return p, err
	}
	p.Progress, err = from.Progress(ctx)
	return p, err
}

// Unfinished are the searches that go on.
func (p Progress) Unfinished() (list []store.Discovery) {
	for _, d := range p.Searches {
		if d.FinishedAt.IsZero() && (d.Collection != everything || p.swept()) {
			list = append(list, d)
		}
	}
	return list
}

// swept tells whether a collection depends on the search of everything.
func (p Progress) swept() bool {
	for _, d := range p.Searches {
		if d.Collection != everything && d.Method == methodAll && d.FinishedAt.IsZero() {
			return true
		}
	}
	return false
}

// Unoffered tells whether a search cannot go on because no relay lists repositories.
func (p Progress) Unoffered() bool {
	return p.swept() && slices.ContainsFunc(p.Searches, func(d store.Discovery) bool { return d.Method == methodUnoffered })
}

// Found is how many repositories the hosts have listed. One counts for each of its
// collections.
func (p Progress) Found() (n int) {
	swept := false
	for _, d := range p.Searches {
		if d.Method == methodAll {
			swept = swept || d.Collection == everything
			continue // its own count is that of the search of everything
		}
		n += d.Found
	}
	for _, d := range p.Searches {
		if swept && d.Collection == everything {
			n += d.Found
		}
	}
	return n
}

// Settled tells whether nothing is left to do but to try again what failed.
func (p Progress) Settled() bool {
	return len(p.Unfinished()) == 0 && p.Waiting <= p.Failing && p.Resyncing == 0
}

// Rate is how many repositories became whole a second.
func (p Progress) Rate() float64 {
	if p.Span <= 0 {
		return 0
	}
	return float64(p.Fetched) / p.Span.Seconds()
}

// ETA is how long it takes to fetch what waits at that rate, if anything moves.
func (p Progress) ETA() (eta time.Duration, known bool) {
	switch {
	case p.Waiting == 0:
		return 0, true
	case p.Fetched == 0:
		return 0, false
	}
	return time.Duration(float64(p.Waiting) / p.Rate() * float64(time.Second)), true
}

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// caller makes one request of a kind, over a connection of its own.
type caller func(rng *rand.Rand) error

// sample is what one kind of request did in one round.
type sample struct {
	perSecond float64
	p50, p99  time.Duration
}

// measure has every caller call as often as it can for d.
func measure(ctx context.Context, d time.Duration, callers []caller) (sample, error) {
	times := make([][]time.Duration, len(callers))
	group, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for i, call := range callers {
		group.Go(func() error {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for ctx.Err() == nil && time.Since(start) < d {
				begun := time.Now()
				if err := call(rng); err != nil {
					return err
				}
				times[i] = append(times[i], time.Since(begun))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return sample{}, err
	}
	took := time.Since(start)
	all := slices.Concat(times...)
	if len(all) == 0 {
		return sample{}, fmt.Errorf("no request ended within %s", d)
	}
	slices.Sort(all)
	return sample{
		perSecond: float64(len(all)) / took.Seconds(),
		p50:       all[len(all)/2],
		p99:       all[len(all)*99/100],
	}, nil
}

// middle is the sample of the median rate.
func middle(samples []sample) sample {
	sorted := slices.SortedFunc(slices.Values(samples), func(a, b sample) int {
		return int(a.perSecond - b.perSecond)
	})
	return sorted[len(sorted)/2]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond)) }

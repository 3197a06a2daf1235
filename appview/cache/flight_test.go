package cache

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func (a *asker) waiting() int {
	a.flights.mu.Lock()
	defer a.flights.mu.Unlock()
	if one := a.flights.byKey[a.q.Key]; one != nil {
		return one.waiting
	}
	return 0
}

func TestEqualQuestionsShareAnAnswerAndNoneEndsTheOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.asker("", Source{})
	goOn := make(chan struct{})
	a.between = func(ctx context.Context, _ string) {
		select {
		case <-goOn:
		case <-ctx.Done():
		}
	}
	const askers = 20
	contexts, cancels := make([]context.Context, askers), make([]context.CancelFunc, askers)
	errs := make([]error, askers)
	var done sync.WaitGroup
	for i := range askers {
		contexts[i], cancels[i] = context.WithCancel(t.Context())
		defer cancels[i]()
		done.Go(func() { _, errs[i] = a.ask(contexts[i]) })
		require.Eventually(t, func() bool { return a.waiting() == i+1 }, patience, time.Millisecond)
	}
	for _, i := range []int{0, 7} { // the first of them is who began
		cancels[i]()
		require.Eventually(t, func() bool { return contexts[i].Err() != nil }, patience, time.Millisecond)
	}
	require.Eventually(t, func() bool { return a.waiting() == askers-2 }, patience, time.Millisecond)
	close(goOn)
	done.Wait()
	for i, err := range errs {
		if i == 0 || i == 7 {
			require.ErrorIs(t, err, context.Canceled)
		} else {
			require.NoError(t, err)
		}
	}
	require.Equal(t, int64(1), a.made.Load())
}

func TestWorkEndsWhenAllWhoWaitHaveGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.asker("", Source{})
	began, ended := make(chan struct{}), make(chan struct{})
	a.between = func(ctx context.Context, _ string) {
		close(began)
		<-ctx.Done()
		close(ended)
	}
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() { _, err := a.ask(ctx); asked <- err }()
	<-began
	cancel()
	require.ErrorIs(t, <-asked, context.Canceled)
	<-ended
	a.between = nil
	a.sees("nothing", 2)
}

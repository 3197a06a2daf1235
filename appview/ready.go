package appview

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
)

// Check is something the process needs. Ping returns nil when it answers.
type Check struct {
	Name string // as an operator knows it: "postgresql"
	Ping func(context.Context) error
}

const (
	readyFor     = time.Second     // how long an outcome is reused, so that probes cost little
	checkTimeout = 2 * time.Second // after which a check counts as failed
)

// readiness runs the checks, at most once in readyFor.
type readiness struct {
	checks []Check
	logger *slog.Logger
	now    func() time.Time

	mu      sync.Mutex // held while the checks run: one run serves all who ask meanwhile
	checked time.Time
	failed  map[string]string
}

func newReadiness(checks []Check, logger *slog.Logger) *readiness {
	return &readiness{checks: checks, logger: logger, now: time.Now}
}

// failing names what does not answer, with why in a word or two. Addresses and
// driver messages go to the log alone.
func (r *readiness) failing() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.checked.IsZero() && r.now().Sub(r.checked) < readyFor {
		return r.failed
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	errs := make([]error, len(r.checks))
	var wg sync.WaitGroup
	for i, check := range r.checks {
		wg.Go(func() { errs[i] = check.Ping(ctx) })
	}
	wg.Wait()
	failed := map[string]string{}
	for i, err := range errs {
		if err == nil {
			continue
		}
		r.logger.Warn("not ready", slog.String("check", r.checks[i].Name), slog.Any("error", err))
		failed[r.checks[i].Name] = "unreachable"
		if errors.Is(err, context.DeadlineExceeded) {
			failed[r.checks[i].Name] = "no answer in time"
		}
	}
	r.checked, r.failed = r.now(), failed
	return failed
}

// answerReady says whether this process should be sent requests.
func (s *Server) answerReady(c echo.Context) error {
	if s.draining.Load() {
		return c.JSON(http.StatusServiceUnavailable, map[string]any{"status": "draining"})
	}
	if failed := s.ready.failing(); len(failed) > 0 {
		return c.JSON(http.StatusServiceUnavailable, map[string]any{"status": "unready", "failing": failed})
	}
	return c.JSON(http.StatusOK, map[string]any{"status": "ready"})
}

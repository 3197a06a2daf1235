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
	// Optional is set where the process answers without it what it can.
	Optional bool
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
	failed  map[string]string // what has to answer
	missing map[string]string // what is optional
}

func newReadiness(checks []Check, logger *slog.Logger) *readiness {
	return &readiness{checks: checks, logger: logger, now: time.Now}
}

// failing names what does not answer, with why in a word or two: what has to, and what
// is optional. Addresses and driver messages go to the log alone.
func (r *readiness) failing() (failed, missing map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.checked.IsZero() && r.now().Sub(r.checked) < readyFor {
		return r.failed, r.missing
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	errs := make([]error, len(r.checks))
	var wg sync.WaitGroup
	for i, check := range r.checks {
		wg.Go(func() { errs[i] = check.Ping(ctx) })
	}
	wg.Wait()
	failed, missing = map[string]string{}, map[string]string{}
	for i, err := range errs {
		if err == nil {
			continue
		}
		check, kind := r.checks[i], failed
		if check.Optional {
			kind = missing
		}
		r.logger.Warn("not ready", slog.String("check", check.Name), slog.Bool("optional", check.Optional), slog.Any("error", err))
		kind[check.Name] = "unreachable"
		if errors.Is(err, context.DeadlineExceeded) {
			kind[check.Name] = "no answer in time"
		}
	}
	r.checked, r.failed, r.missing = r.now(), failed, missing
	return failed, missing
}

// answerReady says whether this process should be sent requests.
func (s *Server) answerReady(c echo.Context) error {
	if s.draining.Load() {
		return c.JSON(http.StatusServiceUnavailable, map[string]any{"status": "draining"})
	}
	failed, missing := s.ready.failing()
	detail := map[string]any{"status": "ready"}
	if len(missing) > 0 {
		detail["degraded"] = missing
	}
	if len(failed) > 0 {
		detail["status"], detail["failing"] = "unready", failed
		return c.JSON(http.StatusServiceUnavailable, detail)
	}
	return c.JSON(http.StatusOK, detail)
}

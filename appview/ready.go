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

// ErrFilling is what a Ping returns, wrapped or not, where what it asks answers but is
// being filled, so that answers may lack records.
var ErrFilling = errors.New("it is being filled")

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
	found   findings
}

// findings name what is not as it should be, with why in a word or two. Addresses and
// driver messages go to the log alone.
type findings struct {
	failing    map[string]string // what has to answer, and does not
	degraded   map[string]string // what is optional, and does not answer
	incomplete map[string]string // what answers, and may lack records
}

func newReadiness(checks []Check, logger *slog.Logger) *readiness {
	return &readiness{checks: checks, logger: logger, now: time.Now}
}

// look runs the checks, if that was not done just now.
func (r *readiness) look() findings {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.checked.IsZero() && r.now().Sub(r.checked) < readyFor {
		return r.found
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	errs := make([]error, len(r.checks))
	var wg sync.WaitGroup
	for i, check := range r.checks {
		wg.Go(func() { errs[i] = check.Ping(ctx) })
	}
	wg.Wait()
	found := findings{failing: map[string]string{}, degraded: map[string]string{}, incomplete: map[string]string{}}
	for i, err := range errs {
		if err != nil {
			found.add(r.checks[i], err, r.logger)
		}
	}
	r.checked, r.found = r.now(), found
	return found
}

// add takes down what is wrong with what a check asks.
func (f *findings) add(check Check, err error, logger *slog.Logger) {
	if errors.Is(err, ErrFilling) { // who fills it logs that
		f.incomplete[check.Name] = "being filled"
		return
	}
	logger.Warn("not ready", slog.String("check", check.Name), slog.Bool("optional", check.Optional), slog.Any("error", err))
	why := "unreachable"
	if errors.Is(err, context.DeadlineExceeded) {
		why = "no answer in time"
	}
	if check.Optional {
		f.degraded[check.Name] = why
	} else {
		f.failing[check.Name] = why
	}
}

// answerReady says whether this process should be sent requests.
func (s *Server) answerReady(c echo.Context) error {
	if s.draining.Load() {
		return c.JSON(http.StatusServiceUnavailable, map[string]any{"status": "draining"})
	}
	found := s.ready.look()
	detail := map[string]any{"status": "ready"}
	if len(found.degraded) > 0 {
		detail["degraded"] = found.degraded
	}
	if len(found.incomplete) > 0 {
		detail["incomplete"] = found.incomplete
	}
	if len(found.failing) > 0 {
		detail["status"], detail["failing"] = "unready", found.failing
		return c.JSON(http.StatusServiceUnavailable, detail)
	}
	return c.JSON(http.StatusOK, detail)
}

package appview

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// Run serves until ctx ends, then drains: /ready turns 503, requests are served
// for DrainDelay more, then the listener closes and requests in flight have
// ShutdownTimeout to end. The operator's address stays up until the last. It
// returns nil after a complete drain.
func (s *Server) Run(ctx context.Context) error {
	group, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	group.Go(func() error { return serve(s.public, s.publicListener, "public") })
	group.Go(func() error { return serve(s.metrics, s.metricsConn, "metrics") })
	s.logger.InfoContext(ctx, "listening", slog.String("address", s.Addr()), slog.String("metrics", s.MetricsAddr()))
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return s.drain(failed)
		case <-failed.Done(): // a listener broke: nothing to wait for
			return s.Close()
		}
	})
	return group.Wait()
}

func serve(srv *http.Server, on net.Listener, name string) error {
	if err := srv.Serve(on); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s address: %w", name, err)
	}
	return nil
}

// drain ends the server in order; ctx ends early if a listener breaks meanwhile.
func (s *Server) drain(ctx context.Context) error {
	s.draining.Store(true)
	s.logger.InfoContext(ctx, "draining", slog.Duration("delay", s.cfg.DrainDelay))
	select {
	case <-time.After(s.cfg.DrainDelay):
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ShutdownTimeout)
	defer cancel()
	if s.live != nil {
		s.live.Drain(ctx)
	}
	err := s.public.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("requests still in flight after %s: %w", s.cfg.ShutdownTimeout, err), s.public.Close())
	}
	return errors.Join(err, s.metrics.Close())
}

// Close stops at once, whatever is in flight. Run does not need it.
func (s *Server) Close() error {
	var errs []error
	for _, srv := range []*http.Server{s.public, s.metrics} {
		if srv != nil {
			errs = append(errs, srv.Close())
		}
	}
	for _, l := range []net.Listener{s.publicListener, s.metricsConn} {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

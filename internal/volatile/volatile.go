// Package volatile asks a Redis that is of use only if it answers at once: what is in
// it may be lost, and who asks does without.
package volatile

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/layers-pub/layers-appview/internal/telemetry"
)

const (
	answerTime   = 100 * time.Millisecond
	dialTime     = 200 * time.Millisecond // of the driver's own tries, which nobody waits for
	pauseTime    = 2 * time.Second        // after a failure, until one call tries again
	connections  = 32
	logNotBefore = 10 * time.Second
)

// ErrAway says that Redis did not answer, now or a moment ago.
var ErrAway = errors.New("Redis does not answer") //nolint:staticcheck // a name

// Client is a Redis that may be away.
type Client struct {
	redis   *redis.Client
	logger  *slog.Logger
	within  time.Duration
	pause   time.Duration
	unwatch func()
	until   atomic.Int64 // nanoseconds; before that Redis is left alone
	logged  atomic.Int64
}

// Open prepares a client; it does not connect. Errors are of the URL. A server that
// is asked by TLS has to have a certificate of roots, or of the system's if nil.
func Open(url string, roots *x509.CertPool, logger *slog.Logger) (*Client, error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("redis URL: %w", err)
	}
	if options.TLSConfig != nil {
		options.TLSConfig.RootCAs = roots
	}
	options.ContextTimeoutEnabled, options.ReadTimeout, options.WriteTimeout = true, -1, -1 // the time is that of [Client.Do]
	options.DialTimeout, options.MaxRetries, options.PoolSize = dialTime, -1, connections
	client := redis.NewClient(options)
	return &Client{redis: client, logger: logger, within: answerTime, pause: pauseTime, unwatch: telemetry.ObserveRedis(client)}, nil
}

// Close ends the connections.
func (c *Client) Close() error {
	c.unwatch()
	if err := c.redis.Close(); err != nil {
		return fmt.Errorf("close the connections to Redis: %w", err)
	}
	return nil
}

// Within sets how long an answer may take, with all that it takes to connect.
func (c *Client) Within(d time.Duration) { c.within = d }

// Pause sets how long Redis is left alone after a failure.
func (c *Client) Pause(d time.Duration) { c.pause = d }

// Do asks Redis, unless it failed just now. After a pause one call tries again, and the
// others once that has succeeded. A key that is not there is no failure: [redis.Nil] is
// for ask to deal with. Errors are [ErrAway] or the context's.
func (c *Client) Do(ctx context.Context, ask func(context.Context, *redis.Client) error) error {
	now, until := time.Now().UnixNano(), c.until.Load()
	if now < until || until != 0 && !c.until.CompareAndSwap(until, now+int64(c.pause)) {
		return ErrAway
	}
	asking, cancel := context.WithTimeout(ctx, c.within)
	defer cancel()
	err := ask(asking, c.redis)
	if err == nil {
		if until != 0 {
			c.until.Store(0)
		}
		return nil
	}
	if gone := ctx.Err(); gone != nil { // it was not Redis that failed
		return gone
	}
	c.until.Store(time.Now().UnixNano() + int64(c.pause))
	if last := c.logged.Load(); now-last > int64(logNotBefore) && c.logged.CompareAndSwap(last, now) {
		c.logger.WarnContext(ctx, "Redis does not answer, going on without", "error", err)
	}
	return fmt.Errorf("%w: %w", ErrAway, err)
}

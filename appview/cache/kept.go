package cache

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// How long Redis may take. It is asked to save time: what takes longer than PostgreSQL
// does is of no use.
const (
	redisTime     = 50 * time.Millisecond
	redisPause    = 2 * time.Second // after a failure, until it is tried again by one request
	redisConns    = 32
	maxBody       = 512 << 10 // bytes of an answer that is kept
	labelBytes    = 8
	keyPrefix     = "layers:answer:"
	warnNotBefore = 10 * time.Second
)

// entry is an answer and its label.
type entry struct {
	label int64
	body  []byte
}

// kept are answers in Redis.
type kept struct {
	client  *redis.Client
	version string
	logger  *slog.Logger
	pause   time.Duration
	until   atomic.Int64 // nanoseconds; before that Redis is left alone
	warned  atomic.Int64
}

func openKept(cfg Config) (*kept, error) {
	options, err := redis.ParseURL(cfg.RedisURL)
	if err != nil {
		return nil, fmt.Errorf("redis URL: %w", err)
	}
	options.DialTimeout, options.ReadTimeout, options.WriteTimeout, options.PoolTimeout = 4*redisTime, redisTime, redisTime, redisTime
	options.MaxRetries, options.PoolSize, options.ContextTimeoutEnabled = -1, redisConns, true
	return &kept{client: redis.NewClient(options), version: cfg.Version, logger: cfg.Logger, pause: redisPause}, nil
}

// name is a question's key in Redis.
func (k *kept) name(key string) string {
	sum := sha256.Sum256([]byte(k.version + "\x00" + key))
	return keyPrefix + base64.RawURLEncoding.EncodeToString(sum[:18])
}

// get returns what is kept; nothing if Redis does not answer at once.
func (k *kept) get(ctx context.Context, key string) (e entry) {
	k.try(ctx, func(ctx context.Context) error {
		raw, err := k.client.Get(ctx, k.name(key)).Bytes()
		if err == nil && len(raw) > labelBytes {
			e = entry{label: int64(binary.BigEndian.Uint64(raw)), body: raw[labelBytes:]}
		}
		return err
	})
	return e
}

// put keeps an answer, if it is not too large.
func (k *kept) put(ctx context.Context, q Question, e entry) {
	if len(e.body) > maxBody {
		return
	}
	raw := append(binary.BigEndian.AppendUint64(make([]byte, 0, labelBytes+len(e.body)), uint64(e.label)), e.body...)
	k.try(ctx, func(ctx context.Context) error { return k.client.Set(ctx, k.name(q.Key), raw, q.For).Err() })
}

// try asks Redis, unless it failed just now. After a pause one request tries again,
// and the others once that has succeeded.
func (k *kept) try(ctx context.Context, do func(context.Context) error) {
	now, until := time.Now().UnixNano(), k.until.Load()
	if now < until || until != 0 && !k.until.CompareAndSwap(until, now+int64(k.pause)) {
		return
	}
	asking, cancel := context.WithTimeout(ctx, 2*redisTime)
	defer cancel()
	err := do(asking)
	switch {
	case err == nil || errors.Is(err, redis.Nil):
		if until != 0 {
			k.until.Store(0)
		}
	case ctx.Err() == nil: // else it was the client that went
		k.until.Store(time.Now().UnixNano() + int64(k.pause))
		if last := k.warned.Load(); now-last > int64(warnNotBefore) && k.warned.CompareAndSwap(last, now) {
			k.logger.WarnContext(ctx, "Redis does not answer: answers are worked out anew", "error", err)
		}
	}
}

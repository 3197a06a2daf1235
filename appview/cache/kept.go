package cache

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/layers-pub/layers-appview/internal/volatile"
)

const (
	maxBody    = 512 << 10 // bytes of an answer that is kept
	labelBytes = 8
	keyPrefix  = "layers:answer:"
)

// entry is an answer and its label.
type entry struct {
	label int64
	body  []byte
}

// kept are answers in Redis. One that does not answer at once is of no use.
type kept struct {
	redis   *volatile.Client
	version string
}

func openKept(cfg Config) (*kept, error) {
	client, err := volatile.Open(cfg.RedisURL, cfg.Roots, cfg.Logger)
	return &kept{redis: client, version: cfg.Version}, err
}

// name is a question's key in Redis.
func (k *kept) name(key string) string {
	sum := sha256.Sum256([]byte(k.version + "\x00" + key))
	return keyPrefix + base64.RawURLEncoding.EncodeToString(sum[:18])
}

// get returns what is kept; nothing if Redis does not answer.
func (k *kept) get(ctx context.Context, key string) (e entry) {
	_ = k.redis.Do(ctx, func(ctx context.Context, client *redis.Client) error {
		raw, err := client.Get(ctx, k.name(key)).Bytes()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		if err == nil && len(raw) > labelBytes {
			e = entry{label: int64(binary.BigEndian.Uint64(raw)), body: raw[labelBytes:]}
		}
		return err
	})
	return e
}

// put keeps an answer, if it is not too large and Redis takes it.
func (k *kept) put(ctx context.Context, q Question, e entry) {
	if len(e.body) > maxBody {
		return
	}
	raw := append(binary.BigEndian.AppendUint64(make([]byte, 0, labelBytes+len(e.body)), uint64(e.label)), e.body...)
	_ = k.redis.Do(ctx, func(ctx context.Context, client *redis.Client) error {
		return client.Set(ctx, k.name(q.Key), raw, q.For).Err()
	})
}

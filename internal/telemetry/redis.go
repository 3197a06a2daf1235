package telemetry

import (
	"context"
	"errors"
	"net"

	"github.com/redis/go-redis/v9"
)

var (
	redisCommand  = NewOperation(Redis, "command")
	redisScript   = NewOperation(Redis, "script")
	redisPipeline = NewOperation(Redis, "pipeline")
)

// ObserveRedis shows what a client does, until stop is called.
func ObserveRedis(client *redis.Client) (stop func()) {
	client.AddHook(redisHook{})
	return Watch(Redis, func() Pool {
		s := client.PoolStats()
		return Pool{Used: int(s.TotalConns - s.IdleConns), Idle: int(s.IdleConns), Max: client.Options().PoolSize}
	})
}

type redisHook struct{}

func (redisHook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (redisHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		operation := redisCommand
		if name := cmd.Name(); name == "evalsha" || name == "eval" {
			operation = redisScript
		}
		ctx, call := operation.Start(ctx)
		err := next(ctx, cmd)
		call.Text(cmd.Name())
		call.End(redisFailure(err))
		return err
	}
}

func (redisHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		ctx, call := redisPipeline.Start(ctx)
		err := next(ctx, cmds)
		call.End(redisFailure(err))
		return err
	}
}

// redisFailure leaves out what is an answer: that there is no such key, that the server
// does not know a script yet, which is sent to it then, and that it is too old for what
// the client tries when it connects.
func redisFailure(err error) error {
	if errors.Is(err, redis.Nil) || redis.HasErrorPrefix(err, "NOSCRIPT") || redis.HasErrorPrefix(err, "ERR unknown") {
		return nil
	}
	return err
}

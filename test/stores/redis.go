package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/layers-pub/layers-appview/internal/daemon"
)

func startRedis(ctx context.Context, _ kind) (*running, error) {
	program, env, err := findRedis(ctx)
	if err != nil {
		return nil, err
	}
	n, err := newNative("redis")
	if err != nil {
		return nil, err
	}
	url := fmt.Sprintf("redis://127.0.0.1:%d/0", n.port)
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }()
	r, err := n.run(ctx, daemon.Spec{
		Path: program,
		Args: []string{
			"--port", strconv.Itoa(n.port), "--bind", "127.0.0.1",
			"--databases", "1024", "--save", "", "--appendonly", "no", "--dir", n.home,
		},
		Env: env,
	}, func(ctx context.Context) error { return client.Ping(ctx).Err() })
	if err != nil {
		return nil, err
	}
	r.url = url
	return r, nil
}

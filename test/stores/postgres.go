package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/layers-pub/layers-appview/internal/embedpg"
)

func startPostgres(ctx context.Context, _ bool) (*running, error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	starting := context.AfterFunc(ctx, end) // the end of ctx ends the start, not the server
	server, err := embedpg.Start(life, embedpg.Config{
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Parameters: map[string]string{
			"max_connections": "300",
			"shared_buffers":  "256MB",
		},
	})
	starting()
	if err != nil {
		end()
		return nil, err
	}
	return &running{url: server.URL(), stop: server.Stop, died: server.Done(), log: server.Log}, nil
}

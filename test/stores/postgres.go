package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/layers-pub/layers-appview/internal/embedpg"
	"github.com/layers-pub/layers-appview/test/stores/fullpostgres"
)

func startPostgres(ctx context.Context, kind kind) (*running, error) {
	build := "" // the embedded one
	if kind.fullPostgres {
		var err error
		if build, err = fullpostgres.Install(ctx); err != nil {
			return nil, err
		}
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	starting := context.AfterFunc(ctx, end) // the end of ctx ends the start, not the server
	server, err := embedpg.Start(life, embedpg.Config{
		Build:  build,
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

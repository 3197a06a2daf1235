package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/layers-pub/layers-appview/internal/simulate"
)

func simulateCommand() *cli.Command {
	return &cli.Command{
		Name:  "simulate",
		Usage: "serve a simulated network: a PLC directory and a PDS with signed commits of sample corpora",
		Description: "With --record DIR the stream is written to a directory and nothing is served; with --replay DIR that\n" +
			"stream is served without any signing, so that a benchmark measures its reader alone.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Value: "127.0.0.1:2583", Usage: "address to serve at"},
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "what everything follows from: the same seed gives the same stream"},
			&cli.IntFlag{Name: "authors", Value: 4, Usage: "accounts that write"},
			&cli.IntFlag{Name: "records", Value: 1000, Usage: "records to create"},
			&cli.IntFlag{Name: "per-commit", Value: 1, Usage: "records in a commit, 1 to 200"},
			&cli.IntFlag{Name: "edits", Value: 10, Usage: "commits in a hundred that change earlier records"},
			&cli.IntFlag{Name: "foreign", Usage: "commits in a hundred that are other applications' posts"},
			&cli.FloatFlag{Name: "rate", Value: 20, Usage: "records a second; 0 for as fast as it goes"},
			&cli.StringFlag{Name: "record", Usage: "write the stream to this directory, and serve nothing"},
			&cli.StringFlag{Name: "replay", Usage: "serve the stream in this directory"},
		},
		Action: runSimulate,
	}
}

func runSimulate(ctx context.Context, command *cli.Command) error {
	if dir := command.String("replay"); dir != "" {
		recording, err := simulate.Open(dir)
		if err != nil {
			return fmt.Errorf("opening the recorded stream: %w", err)
		}
		defer func() { _ = recording.Close() }()
		return serveNetwork(ctx, command, simulate.NewRecordingServer(recording, simulate.ServerConfig{}), nil)
	}
	world, err := simulate.NewWorld(simulate.Config{Seed: command.Uint64("seed"), Dir: command.String("record")})
	if err != nil {
		return fmt.Errorf("making the network: %w", err)
	}
	defer func() { _ = world.Close() }()
	generator, err := simulate.NewGenerator(world, simulate.Script{
		Authors: command.Int("authors"), Records: command.Int("records"), PerCommit: command.Int("per-commit"),
		Edits: command.Int("edits"), Foreign: command.Int("foreign"), Live: command.String("record") == "",
	})
	if err != nil {
		return fmt.Errorf("making the authors: %w", err)
	}
	defer generator.Stop()
	if dir := command.String("record"); dir != "" {
		return recordNetwork(ctx, world, generator, dir)
	}
	server := simulate.NewServer(world, simulate.ServerConfig{})
	return serveNetwork(ctx, command, server, func() error { return generator.Run(ctx, command.Float("rate")) })
}

func recordNetwork(ctx context.Context, world *simulate.World, generator *simulate.Generator, dir string) error {
	began := time.Now()
	if err := generator.Run(ctx, 0); err != nil {
		return fmt.Errorf("generating the stream: %w", err)
	}
	if err := world.Save(dir); err != nil {
		return fmt.Errorf("saving the stream: %w", err)
	}
	fmt.Fprintf(os.Stderr, "%d events written to %s in %s\n", world.LastSeq(), dir, time.Since(began).Round(time.Millisecond))
	return nil
}

func serveNetwork(ctx context.Context, command *cli.Command, server *simulate.Server, generate func() error) error {
	if err := server.Start(command.String("listen")); err != nil {
		return fmt.Errorf("serving the network: %w", err)
	}
	defer func() { _ = server.Stop() }()
	fmt.Fprintf(os.Stderr, "LAYERS_RELAY_URL=%s LAYERS_PLC_URL=%s LAYERS_ALLOW_PRIVATE_HOSTS=true\n", server.RelayURL(), server.URL())
	if generate != nil {
		if err := generate(); err != nil {
			return fmt.Errorf("generating the stream: %w", err)
		}
	}
	<-ctx.Done()
	return nil
}

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
)

const (
	healthTime = 5 * time.Second
	healthBody = 4 << 10 // bytes of an answer that are shown
)

// healthCommand is for images that have no other program to ask with.
func healthCommand() *cli.Command {
	return &cli.Command{
		Name:        "health",
		Usage:       "ask a running process whether it is ready; the exit code says so",
		Description: "For health checks of containers, whose image has neither a shell nor curl.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "url", Value: "http://127.0.0.1:3000/ready", Usage: "what to ask: /ready, or /health for whether it lives at all"},
		},
		Action: func(ctx context.Context, command *cli.Command) error {
			return askHealth(ctx, command.Root().Writer, command.String("url"))
		},
	}
}

func askHealth(ctx context.Context, out io.Writer, address string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("--url: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("not there: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, healthBody))
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	fmt.Fprintln(out, strings.TrimSpace(string(body)))
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", response.Status)
	}
	return nil
}

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/urfave/cli/v3"

	"github.com/layers-pub/layers-appview/internal/checkup"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "ask a deployment, as a client does, whether it answers as it should; exit 1 if not",
		Description: "Health, readiness, identity, records whose values give their CIDs, errors, search, rate limits, and the\n" +
			"stream of events. With --metrics-url, the indexer's, also whether it follows the network. It needs no store.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "url", Required: true, Usage: "address of the API, as clients reach it"},
			&cli.StringFlag{Name: "metrics-url", Usage: "address of the indexer's metrics, such as http://127.0.0.1:9090/metrics"},
			&cli.StringSliceFlag{Name: "record", Usage: "AT-URI of a record that has to be there; may be repeated"},
			&cli.DurationFlag{Name: "max-lag", Value: 5 * time.Minute, Usage: "how far the indexer may be behind the network"},
			&cli.DurationFlag{Name: "pause", Value: 10 * time.Second, Usage: "between two looks at the indexer"},
			&cli.BoolFlag{Name: "degraded", Usage: "it may do without optional stores"},
			&cli.BoolFlag{Name: "empty", Usage: "it may have no records yet"},
		},
		Action: runCheck,
	}
}

func runCheck(ctx context.Context, command *cli.Command) error {
	cfg := checkup.Config{
		URL: command.String("url"), Metrics: command.String("metrics-url"), MaxLag: command.Duration("max-lag"),
		Pause: command.Duration("pause"), Degraded: command.Bool("degraded"), Empty: command.Bool("empty"),
	}
	for _, text := range command.StringSlice("record") {
		uri, err := syntax.ParseATURI(text)
		if err != nil {
			return problem(command, "record", "%q is not an AT-URI", text)
		}
		cfg.Records = append(cfg.Records, uri)
	}
	return checkup.Run(ctx, cfg, func(f checkup.Finding) { fmt.Fprintln(command.Root().Writer, f) })
}

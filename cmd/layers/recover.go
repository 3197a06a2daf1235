package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/layers-pub/layers-appview/internal/store"
)

func recoverCommand() *cli.Command {
	return &cli.Command{
		Name:  "recover",
		Usage: "after PostgreSQL was restored: go on with versions beyond all that may have been lost",
		Description: "The indexer does this by itself when it finds another server or timeline, as after a restore to a point in\n" +
			"time or a failover. It is needed where PostgreSQL does not tell, as after a volume was put back to a snapshot.\n" +
			"It may be repeated, and does no harm where nothing was lost. Run `layers verify --repair` after it.",
		Flags: operatorFlags(&cli.StringFlag{Name: "reason", Value: "asked for", Usage: "what happened, to be kept with it"}),
		Action: func(ctx context.Context, command *cli.Command) error {
			return withParts(ctx, command, func(p *parts) error {
				return p.audited(ctx, command, "database.recover", "", func(ctx context.Context) error {
					r, err := store.Recover(ctx, p.pool, command.String("reason"))
					if err == nil {
						fmt.Fprintf(command.Root().Writer, "versions above %d are taken for lost; the next one is above %d\n", r.Reached, r.Resumed)
					}
					return err
				})
			})
		},
	}
}

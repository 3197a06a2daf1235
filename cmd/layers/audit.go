package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/user"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/urfave/cli/v3"

	"github.com/layers-pub/layers-appview/internal/store"
)

// asFlag names who uses an operator's command.
func asFlag() cli.Flag {
	return setting(categoryRun, "as", "LAYERS_OPERATOR", "", "who does this, for the log of what operators did (default: the login of this machine)")
}

func (p *parts) adminLog() *store.AdminLog { return store.NewAdminLog(p.pool, p.logger) }

// noted is what is kept of a command that changes something.
func noted(command *cli.Command, action, subject string) store.AdminAction {
	return store.AdminAction{Actor: actor(command), Via: store.ViaCommand, Action: action, Subject: subject, RequestID: rand.Text()}
}

func actor(command *cli.Command) string {
	if name := command.String("as"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil && u.Username != "" {
		return "os:" + u.Username
	}
	return fmt.Sprintf("os:%d", os.Getuid()) // an image has no names
}

// audited notes the beginning and the end of a command that changes something. One
// that was interrupted has failed; one that found differences has done what it was to do.
func (p *parts) audited(ctx context.Context, command *cli.Command, action, subject string, do func(context.Context) error) error {
	log, a := p.adminLog(), noted(command, action, subject)
	a.Outcome = store.Begun
	if err := log.Note(ctx, a); err != nil {
		return err
	}
	err := do(ctx)
	a.Outcome = store.Done
	if err != nil {
		a.Detail = err.Error()
		if !errors.Is(err, errDiffer) {
			a.Outcome = store.Failed
		}
	}
	return errors.Join(err, log.Note(context.WithoutCancel(ctx), a))
}

// within carries out a command that is one transaction, with the note of it.
func (p *parts) within(ctx context.Context, command *cli.Command, action, subject string, do func(pgx.Tx) (string, error)) error {
	return p.adminLog().Within(ctx, noted(command, action, subject), do)
}

func auditCommand() *cli.Command {
	return &cli.Command{
		Name:  "audit",
		Usage: "list what operators did, by commands and over HTTP, newest first",
		Flags: operatorFlags(
			&cli.StringFlag{Name: "actor", Usage: "only what this one did"},
			&cli.StringFlag{Name: "action", Usage: "only this, such as dlq.replay"},
			&cli.StringFlag{Name: "request", Usage: "only what belongs to this request or command"},
			&cli.IntFlag{Name: "limit", Value: 50, Usage: "how many"},
			&cli.Int64Flag{Name: "before", Usage: "only those with a smaller ID, to go on from a list"}),
		Action: func(ctx context.Context, command *cli.Command) error {
			return withParts(ctx, command, func(p *parts) error { return listActions(ctx, command, p) })
		},
	}
}

func listActions(ctx context.Context, command *cli.Command, p *parts) error {
	filter := store.AdminFilter{Actor: command.String("actor"), Action: command.String("action"), RequestID: command.String("request")}
	actions, err := p.adminLog().List(ctx, filter, command.Int64("before"), command.Int("limit"))
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(command.Root().Writer, 0, 4, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tWHEN\tWHO\tVIA\tACTION\tSUBJECT\tOUTCOME\tDETAIL\tREQUEST")
	for _, a := range actions {
		fmt.Fprintf(table, "%d\t%s\t%q\t%s\t%s\t%.80q\t%s\t%.100q\t%s\n", a.ID, a.At.UTC().Format(time.RFC3339), a.Actor, a.Via, a.Action, a.Subject, a.Outcome, a.Detail, a.RequestID)
	}
	return table.Flush()
}

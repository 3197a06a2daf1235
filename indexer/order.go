package indexer

import (
	"context"
	"errors"
)

// order is work that has its place in the order of the stream, between two batches.
type order struct {
	do   func(context.Context) error
	done chan error
}

var errEnded = errors.New("the line has ended")

// inOrder runs do between two batches. Once it has begun it is waited for: whoever
// asked has to know how it ended.
func (l *line) inOrder(ctx context.Context, do func(context.Context) error) error {
	o := order{do: do, done: make(chan error, 1)}
	select {
	case l.orders <- o:
	case <-l.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-o.done:
		return err
	case <-l.ended:
		select {
		case err := <-o.done:
			return err
		default:
			return errEnded
		}
	}
}

// obey carries an order out. What it returns ends the line.
func (l *line) obey(ctx context.Context, o order) error {
	err := o.do(ctx)
	o.done <- err
	if fatal(ctx, err) {
		return err
	}
	return nil
}

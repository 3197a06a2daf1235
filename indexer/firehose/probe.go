package firehose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gorilla/websocket"
)

var (
	errStalled = errors.New("the stream stands still while the host has events")
	errReturn  = errors.New("the first host works again")
)

// watch looks after a connection from beside it: it reports how far behind the
// stream is, asks the host how far it is when nothing comes, and while another host
// is followed looks whether the first one works again.
func (c *connection) watch(ctx context.Context, giveUp context.CancelCauseFunc) {
	ticker := time.NewTicker(min(c.cfg.Quiet/4, c.cfg.Return/4, time.Second))
	defer ticker.Stop()
	asked, tried := time.Duration(0), time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		c.observe()
		if since := time.Duration(c.waiting.Load()); since > 0 && c.now()-max(since, asked) >= c.cfg.Quiet {
			if c.stalled(ctx) {
				giveUp(fmt.Errorf("%w: %s sent nothing for %s", errStalled, c.host, c.now()-since))
				return
			}
			asked = c.now()
		}
		if c.host != c.first && c.now()-tried >= c.cfg.Return {
			if c.firstWorks(ctx) {
				giveUp(errReturn)
				return
			}
			tried = c.now()
		}
	}
}

// observe shows the lag of the frame that was read last: between the event and our
// reading it.
func (c *connection) observe() {
	last := c.latest.Load()
	if last == nil {
		return
	}
	if event, err := last.frame.Decode(); err == nil && !event.Time().IsZero() {
		lag.Set(last.event.Sub(event.Time()).Seconds())
	}
}

// position is the sequence number that the connection has come to. It is unknown
// where the last frame tells none.
func (c *connection) position() (seq int64, known bool) {
	last := c.latest.Load()
	if last == nil {
		return c.resumed, c.resumed > 0
	}
	event, err := last.frame.Decode()
	return event.Seq, err == nil && event.Seq > 0
}

// stalled asks the host, by way of a second short subscription, for events that ours
// should have brought. One from our position finds what has happened meanwhile, also
// where nothing more does; one without a cursor finds what happens now, also where
// the host's playback of older events is what stands still.
func (c *connection) stalled(ctx context.Context) bool {
	before := c.frames.Load()
	seq, known := c.position()
	ahead, err := false, error(nil)
	if known {
		ahead, err = c.moves(ctx, c.host, &seq)
	}
	if !ahead {
		var now error
		ahead, now = c.moves(ctx, c.host, nil)
		err = errors.Join(err, now)
	}
	if ahead {
		ahead = c.nothingSince(ctx, before) // our frame may have been on its way
	}
	switch {
	case ctx.Err() != nil:
		return false
	case ahead:
		probes.WithLabelValues("ahead").Inc()
		stalls.Inc()
		c.cfg.Logger.ErrorContext(ctx, "the firehose stands still though the host has events: reconnecting",
			"host", c.host, "seq", seq, "silent", c.now()-time.Duration(c.waiting.Load()))
	case err != nil:
		probes.WithLabelValues("unknown").Inc()
		c.cfg.Logger.WarnContext(ctx, "nothing comes, and the host could not be asked whether it has events", "host", c.host, "error", err)
	default:
		probes.WithLabelValues("level").Inc()
		c.cfg.Logger.DebugContext(ctx, "the host is quiet", "host", c.host, "seq", seq)
	}
	return ahead
}

// nothingSince gives our subscription a while to deliver what the probe has seen.
func (c *connection) nothingSince(ctx context.Context, before int64) bool {
	grace := time.After(c.cfg.Probe)
	tick := time.NewTicker(c.cfg.Probe / 20)
	defer tick.Stop()
	for c.frames.Load() == before {
		select {
		case <-ctx.Done():
			return false
		case <-grace:
			return c.frames.Load() == before
		case <-tick.C:
		}
	}
	return false
}

// firstWorks tells whether the first host can be followed again: it takes a
// subscription, and is not silent where the present host is not.
func (c *connection) firstWorks(ctx context.Context) bool {
	before := c.frames.Load()
	moves, err := c.moves(ctx, c.first, nil)
	if err != nil {
		c.cfg.Logger.DebugContext(ctx, "the first host does not work yet", "host", c.first, "error", err)
		return false
	}
	return moves || c.frames.Load() == before
}

// moves subscribes to a host for a short while and tells whether it sends an event:
// behind a cursor, or whatever happens now. An error says that it cannot be asked.
func (c *Client) moves(ctx context.Context, host string, after *int64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Probe)
	defer cancel()
	conn, err := c.dial(ctx, host, after)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	seq, err := firstEvent(conn, after)
	if seq == 0 && ctx.Err() != nil {
		return false, nil // it said nothing for as long as we waited
	}
	return seq > 0, err
}

// firstEvent reads until an event comes that lies behind a cursor.
func firstEvent(conn *websocket.Conn, after *int64) (seq int64, err error) {
	var room bytes.Buffer
	for {
		frame, err := next(conn, &room)
		if err != nil {
			return 0, fmt.Errorf("asking the host for its position: %w", err)
		}
		event, err := frame.Decode()
		if ended := (*StreamError)(nil); errors.As(err, &ended) {
			return 0, ended
		}
		if err == nil && event.Seq > 0 && (after == nil || event.Seq > *after) {
			return event.Seq, nil
		}
	}
}

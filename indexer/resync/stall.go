package resync

import (
	"context"
	"errors"
	"io"
	"time"
)

var (
	errSilent = errors.New("no answer in time")
	errSlow   = errors.New("the answer stopped, or came too slowly")
	errLate   = errors.New("the repository took too long")
)

// progress is the least that a host must send: so many bytes in so much time.
type progress struct {
	every time.Duration
	least int64
}

// pace cancels a request whose body stops, or trickles. Only the time spent in
// reading counts: that we are slow ourselves is not the host's fault.
type pace struct {
	body   io.Reader
	cancel context.CancelCauseFunc
	progress

	left  time.Duration // of the present window
	bytes int64         // that came in it
}

func newPace(body io.Reader, cancel context.CancelCauseFunc, least progress) *pace {
	return &pace{body: body, cancel: cancel, progress: least, left: least.every}
}

// Read implements [io.Reader].
func (p *pace) Read(room []byte) (int, error) {
	timer := time.AfterFunc(p.left, func() { p.cancel(errSlow) })
	began := time.Now()
	n, err := p.body.Read(room)
	timer.Stop()
	p.left -= time.Since(began)
	p.bytes += int64(n)
	if p.bytes >= p.least {
		p.left, p.bytes = p.every, 0
	}
	return n, err
}

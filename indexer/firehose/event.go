package firehose

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/bluesky-social/indigo/cmd/relay/stream"
)

// Event is a decoded frame: exactly one of the pointers is set, or none for a
// message type that this version does not know, which passes by.
type Event struct {
	Seq      int64 // 0 where the message has none
	Commit   *comatproto.SyncSubscribeRepos_Commit
	Sync     *comatproto.SyncSubscribeRepos_Sync
	Identity *comatproto.SyncSubscribeRepos_Identity
	Account  *comatproto.SyncSubscribeRepos_Account
	Info     *comatproto.SyncSubscribeRepos_Info
}

// Time is when the host says that the event happened; zero where it does not say.
func (e Event) Time() time.Time {
	text := ""
	switch {
	case e.Commit != nil:
		text = e.Commit.Time
	case e.Sync != nil:
		text = e.Sync.Time
	case e.Identity != nil:
		text = e.Identity.Time
	case e.Account != nil:
		text = e.Account.Time
	}
	at, err := syntax.ParseDatetimeTime(text)
	if err != nil {
		return time.Time{}
	}
	return at
}

// StreamError is the error frame with which a host ends a subscription. Name is
// FutureCursor where the cursor lies ahead of the host, ConsumerTooSlow where we
// did not read fast enough.
type StreamError struct{ Name, Message string }

func (e *StreamError) Error() string {
	return fmt.Sprintf("the host ended the stream: %s: %s", e.Name, e.Message)
}

// ErrFrame is wrapped by Decode for a frame that is no valid message.
var ErrFrame = errors.New("frame is not a valid event")

// Decode parses the frame. Operations, message types and properties that it does not
// know pass by, as the protocol grows by them
// (https://atproto.com/specs/event-stream, "Framing"). It fails with a [StreamError] for an error frame and
// with [ErrFrame] for bytes that do not parse; hostile ones never panic.
func (f Frame) Decode() (event Event, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: decoding panicked: %v", ErrFrame, r)
		}
	}()
	if f.Size > MaxFrame {
		return Event{}, fmt.Errorf("%w: %d bytes, %d are allowed", ErrFrame, f.Size, MaxFrame)
	}
	body := bytes.NewReader(f.Data)
	var header stream.EventHeader
	if err := header.UnmarshalCBOR(body); err != nil {
		return Event{}, fmt.Errorf("%w: header: %w", ErrFrame, err)
	}
	switch header.Op {
	case stream.EvtKindMessage:
		event, err = decodeMessage(header.MsgType, body)
	case stream.EvtKindErrorFrame:
		err = decodeError(body)
	case 0:
		err = fmt.Errorf("%w: the header has no op", ErrFrame)
	}
	return event, err
}

// decodeMessage decodes the body of a message of a type that it knows.
func decodeMessage(kind string, body *bytes.Reader) (event Event, err error) {
	var into interface{ UnmarshalCBOR(io.Reader) error }
	switch kind {
	case "#commit":
		event.Commit = new(comatproto.SyncSubscribeRepos_Commit)
		into = event.Commit
	case "#sync":
		event.Sync = new(comatproto.SyncSubscribeRepos_Sync)
		into = event.Sync
	case "#identity":
		event.Identity = new(comatproto.SyncSubscribeRepos_Identity)
		into = event.Identity
	case "#account":
		event.Account = new(comatproto.SyncSubscribeRepos_Account)
		into = event.Account
	case "#info":
		event.Info = new(comatproto.SyncSubscribeRepos_Info)
		into = event.Info
	default:
		return Event{}, nil
	}
	if err := into.UnmarshalCBOR(body); err != nil {
		return Event{}, fmt.Errorf("%w: %s: %w", ErrFrame, kind, err)
	}
	event.Seq = event.sequence()
	return event, nil
}

func (e Event) sequence() int64 {
	switch {
	case e.Commit != nil:
		return e.Commit.Seq
	case e.Sync != nil:
		return e.Sync.Seq
	case e.Identity != nil:
		return e.Identity.Seq
	case e.Account != nil:
		return e.Account.Seq
	}
	return 0
}

func decodeError(body *bytes.Reader) error {
	var frame stream.ErrorFrame
	if err := frame.UnmarshalCBOR(body); err != nil {
		return fmt.Errorf("%w: error: %w", ErrFrame, err)
	}
	return &StreamError{Name: frame.Error, Message: frame.Message}
}

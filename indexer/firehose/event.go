package firehose

import (
	"bytes"
	"errors"
	"fmt"
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

// Decode parses the frame. It fails with a [StreamError] for an error frame and
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
	var raw stream.XRPCStreamEvent
	if err := raw.Deserialize(bytes.NewReader(f.Data)); err != nil {
		return Event{}, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	switch {
	case raw.Error != nil:
		return Event{}, &StreamError{Name: raw.Error.Error, Message: raw.Error.Message}
	case raw.RepoCommit != nil:
		return Event{Seq: raw.RepoCommit.Seq, Commit: raw.RepoCommit}, nil
	case raw.RepoSync != nil:
		return Event{Seq: raw.RepoSync.Seq, Sync: raw.RepoSync}, nil
	case raw.RepoIdentity != nil:
		return Event{Seq: raw.RepoIdentity.Seq, Identity: raw.RepoIdentity}, nil
	case raw.RepoAccount != nil:
		return Event{Seq: raw.RepoAccount.Seq, Account: raw.RepoAccount}, nil
	case raw.RepoInfo != nil:
		return Event{Info: raw.RepoInfo}, nil
	}
	return Event{}, nil
}

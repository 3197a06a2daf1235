package fault

import (
	"bytes"
	"context"
	"errors"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/cmd/relay/stream"

	"github.com/layers-pub/layers-appview/internal/simulate"
)

// Stream is a fault of the stream.
type Stream struct {
	Count
	name  string
	begin func(cursor int64) simulate.Delivery
}

// Name says what goes wrong.
func (f *Stream) Name() string { return f.name }

// AtMost bounds how often the fault fires.
func (f *Stream) AtMost(n int64) *Stream {
	f.Most = n
	return f
}

// Pick chooses the frames that a fault is for. It must choose the same ones when they
// are sent again.
type Pick func(simulate.Frame) bool

// OneIn picks one #commit in so many, up to the event until.
func OneIn(n int, salt string, until int64) Pick {
	return func(f simulate.Frame) bool {
		return f.Seq <= until && share(salt, f.Seq, n) && commitOf(f) != nil
	}
}

// At picks certain events.
func At(seqs ...int64) Pick {
	return func(f simulate.Frame) bool {
		for _, seq := range seqs {
			if seq == f.Seq {
				return true
			}
		}
		return false
	}
}

// alters makes a fault that sends something else in place of single frames.
func alters(name string, pick Pick, alter func(simulate.Frame) [][]byte) *Stream {
	f := &Stream{name: name}
	f.begin = func(int64) simulate.Delivery {
		return func(_ context.Context, frame simulate.Frame) ([]simulate.Frame, error) {
			if !pick(frame) || !f.fire() {
				return []simulate.Frame{frame}, nil
			}
			var out []simulate.Frame
			for _, data := range alter(frame) {
				out = append(out, simulate.Frame{Seq: frame.Seq, Data: data})
			}
			return out, nil
		}
	}
	return f
}

// Drop loses frames.
func Drop(pick Pick) *Stream {
	return alters("drop", pick, func(simulate.Frame) [][]byte { return nil })
}

// Gap loses all #commit events from one to another.
func Gap(from, to int64) *Stream {
	f := Drop(func(f simulate.Frame) bool { return f.Seq >= from && f.Seq <= to && commitOf(f) != nil })
	f.name = "gap"
	return f
}

// Duplicate sends frames twice.
func Duplicate(pick Pick) *Stream {
	return alters("duplicate", pick, func(f simulate.Frame) [][]byte { return [][]byte{f.Data, f.Data} })
}

// Insert sends something before frames.
func Insert(name string, pick Pick, data []byte) *Stream {
	return alters(name, pick, func(f simulate.Frame) [][]byte { return [][]byte{data, f.Data} })
}

// Swap sends a frame after the next one: of another repository or, with within, of
// the same one.
func Swap(pick Pick, within bool) *Stream {
	f := &Stream{name: "reorder across repositories"}
	if within {
		f.name = "reorder within a repository"
	}
	f.begin = func(int64) simulate.Delivery {
		var kept *simulate.Frame
		return func(_ context.Context, frame simulate.Frame) ([]simulate.Frame, error) {
			if kept == nil {
				if pick(frame) && f.fire() {
					kept = &frame
					return nil, nil
				}
				return []simulate.Frame{frame}, nil
			}
			same := repository(*kept) == repository(frame)
			switch {
			case same && !within: // never within: sends both as they were
				f.fired.Add(-1)
				out := []simulate.Frame{*kept, frame}
				kept = nil
				return out, nil
			case same == within:
				out := []simulate.Frame{frame, *kept}
				kept = nil
				return out, nil
			}
			return []simulate.Frame{frame}, nil
		}
	}
	return f
}

// Rewind sends the last frames once more.
func Rewind(pick Pick, last int) *Stream {
	f := &Stream{name: "rewind"}
	f.begin = func(int64) simulate.Delivery {
		var past []simulate.Frame
		return func(_ context.Context, frame simulate.Frame) ([]simulate.Frame, error) {
			past = append(past, frame)
			past = past[max(0, len(past)-last):]
			if pick(frame) && f.fire() {
				return append([]simulate.Frame{frame}, past...), nil
			}
			return []simulate.Frame{frame}, nil
		}
	}
	return f
}

var errDisconnect = errors.New("the test ends the connection")

// Disconnect ends the connection after frames; each only once, or the stream would
// never get beyond it.
func Disconnect(pick Pick) *Stream {
	f := &Stream{name: "disconnect"}
	f.begin = f.once(pick, func(_ context.Context, frame simulate.Frame) ([]simulate.Frame, error) {
		return []simulate.Frame{frame}, errDisconnect
	})
	return f
}

// Refusal ends the stream with an error frame after frames, each only once.
func Refusal(pick Pick, name string) *Stream {
	f := &Stream{name: "error frame " + name}
	f.begin = f.once(pick, func(_ context.Context, frame simulate.Frame) ([]simulate.Frame, error) {
		refusal := encode(&stream.XRPCStreamEvent{Error: &stream.ErrorFrame{Error: name, Message: "a fault of the test"}})
		return []simulate.Frame{frame, {Seq: frame.Seq, Data: refusal}}, errDisconnect
	})
	return f
}

// Silent sends nothing more from a frame on, for as long as the connection lives.
func Silent(pick Pick) *Stream {
	f := &Stream{name: "silent socket"}
	f.begin = f.once(pick, func(ctx context.Context, _ simulate.Frame) ([]simulate.Frame, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	return f
}

// Slow takes its time before frames.
func Slow(pick Pick, wait time.Duration) *Stream {
	f := &Stream{name: "slow"}
	f.begin = func(int64) simulate.Delivery {
		return func(ctx context.Context, frame simulate.Frame) ([]simulate.Frame, error) {
			if pick(frame) && f.fire() {
				sleep(ctx, wait)
			}
			return []simulate.Frame{frame}, nil
		}
	}
	return f
}

// once does something at each frame that is picked, but not when it comes again.
func (f *Stream) once(pick Pick, do simulate.Delivery) func(int64) simulate.Delivery {
	met := make(chan map[int64]bool, 1)
	met <- map[int64]bool{}
	return func(int64) simulate.Delivery {
		return func(ctx context.Context, frame simulate.Frame) ([]simulate.Frame, error) {
			seen := <-met
			again := seen[frame.Seq]
			hit := !again && pick(frame) && f.fire()
			if hit {
				seen[frame.Seq] = true
			}
			met <- seen
			if hit {
				return do(ctx, frame)
			}
			return []simulate.Frame{frame}, nil
		}
	}
}

func decode(f simulate.Frame) *stream.XRPCStreamEvent {
	var event stream.XRPCStreamEvent
	if event.Deserialize(bytes.NewReader(f.Data)) != nil {
		return nil
	}
	return &event
}

func encode(event *stream.XRPCStreamEvent) []byte {
	var out bytes.Buffer
	if err := event.Serialize(&out); err != nil {
		panic(err) // cannot be: it was decoded, or is made here
	}
	return out.Bytes()
}

// commitOf is the #commit in a frame, or nil.
func commitOf(f simulate.Frame) *comatproto.SyncSubscribeRepos_Commit {
	// The header names the type; most frames need no decoding.
	if !bytes.Contains(f.Data[:min(len(f.Data), 24)], []byte("#commit")) {
		return nil
	}
	if event := decode(f); event != nil {
		return event.RepoCommit
	}
	return nil
}

// repository is the DID that a frame is of, or "".
func repository(f simulate.Frame) string {
	event := decode(f)
	switch {
	case event == nil:
	case event.RepoCommit != nil:
		return event.RepoCommit.Repo
	case event.RepoSync != nil:
		return event.RepoSync.Did
	case event.RepoIdentity != nil:
		return event.RepoIdentity.Did
	case event.RepoAccount != nil:
		return event.RepoAccount.Did
	}
	return ""
}

package simulate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/bluesky-social/indigo/cmd/relay/stream"
)

// Frame is one message of subscribeRepos: a header and a body in DAG-CBOR.
type Frame struct {
	Seq  int64
	Data []byte
}

// frameLog keeps every frame published, in memory or in a file, for subscribers
// to read by position: a slow one holds up nobody.
type frameLog struct {
	window int64
	file   *os.File // nil keeps frames in memory

	mu      sync.Mutex
	frames  []logged
	end     int64         // size of file
	grown   chan struct{} // closed, and replaced, when a frame is added
	over    bool
	trimmed int // frames before this one have no data any more
}

type logged struct {
	seq    int64
	did    syntax.DID
	gone   bool // never sent: dropped, purged, or out of the window
	data   []byte
	offset int64
	size   int
}

// frameHeader is what stands before a frame in the file: its sequence number and
// its length, big endian.
const frameHeader = 8 + 4

const framesFile = "frames.bin"

func newFrameLog(dir string, window int64) (*frameLog, error) {
	l := &frameLog{window: window, grown: make(chan struct{})}
	if dir == "" {
		return l, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(filepath.Join(dir, framesFile))
	if err != nil {
		return nil, err
	}
	l.file = file
	return l, nil
}

// append numbers, encodes and adds an event. Calls must not overlap.
func (l *frameLog) append(did syntax.DID, event func(seq int64) (*stream.XRPCStreamEvent, error)) (int64, error) {
	seq := l.last() + 1
	e, err := event(seq)
	if err != nil {
		return 0, err
	}
	data, err := encodeFrame(e)
	if err != nil {
		return 0, fmt.Errorf("encode event %d: %w", seq, err)
	}
	return seq, l.add(logged{seq: seq, did: did, data: data, size: len(data)})
}

// skip uses up a sequence number without a frame.
func (l *frameLog) skip(did syntax.DID) int64 {
	seq := l.last() + 1
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frames = append(l.frames, logged{seq: seq, did: did, gone: true})
	return seq
}

func (l *frameLog) add(f logged) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		header := binary.BigEndian.AppendUint64(make([]byte, 0, frameHeader+f.size), uint64(f.seq))
		header = binary.BigEndian.AppendUint32(header, uint32(f.size))
		if _, err := l.file.WriteAt(append(header, f.data...), l.end); err != nil {
			return fmt.Errorf("write frame %d: %w", f.seq, err)
		}
		f.offset, f.data = l.end+frameHeader, nil
		l.end = f.offset + int64(f.size)
	}
	l.frames = append(l.frames, f)
	if l.window > 0 {
		for ; int64(len(l.frames)-l.trimmed) > l.window; l.trimmed++ {
			l.frames[l.trimmed].gone, l.frames[l.trimmed].data = true, nil
		}
	}
	close(l.grown)
	l.grown = make(chan struct{})
	return nil
}

func encodeFrame(e *stream.XRPCStreamEvent) ([]byte, error) {
	var buf bytes.Buffer
	if err := e.Serialize(&buf); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// purge removes an account's frames from what is sent from now on.
func (l *frameLog) purge(did syntax.DID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.frames {
		if l.frames[i].did == did {
			l.frames[i].gone, l.frames[i].data = true, nil
		}
	}
}

func (l *frameLog) last() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.frames) == 0 {
		return 0
	}
	return l.frames[len(l.frames)-1].seq
}

// lost is the latest sequence number that has left the window: a cursor before
// it is outdated.
func (l *frameLog) lost() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.trimmed == 0 {
		return 0
	}
	return l.frames[l.trimmed-1].seq
}

// after returns up to limit frames that follow seq. Where there is none yet, it
// returns a channel that is closed once there may be; the channel is nil when
// the log has ended.
func (l *frameLog) after(seq int64, limit int) ([]Frame, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []Frame
	first := sort.Search(len(l.frames), func(i int) bool { return l.frames[i].seq > seq })
	for _, f := range l.frames[first:] {
		if len(found) == limit {
			break
		}
		if f.gone {
			continue
		}
		data := f.data
		if l.file != nil {
			data = make([]byte, f.size)
			if _, err := l.file.ReadAt(data, f.offset); err != nil {
				return nil, nil, fmt.Errorf("read frame %d: %w", f.seq, err)
			}
		}
		found = append(found, Frame{Seq: f.seq, Data: data})
	}
	if len(found) > 0 || l.over {
		return found, nil, nil
	}
	return nil, l.grown, nil
}

func (l *frameLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil
	}
	l.over = true
	close(l.grown)
	if l.file != nil {
		return l.file.Close()
	}
	return nil
}

// Frames returns up to limit frames that follow seq, as subscribeRepos sends
// them; fewer, or none, at the end of the stream.
func (w *World) Frames(seq int64, limit int) ([]Frame, error) {
	frames, _, err := w.log.after(seq, limit)
	return frames, err
}

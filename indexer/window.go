package indexer

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// window bounds what lies between the socket and the transaction, in frames and in
// their bytes. While it is full the socket is not read: that is the back-pressure.
type window struct {
	frames, bytes         *semaphore.Weighted
	mostFrames, mostBytes int64
	framesIn, bytesIn     atomic.Int64
}

func newWindow(frames int, bytes int64) *window {
	return &window{
		frames: semaphore.NewWeighted(int64(frames)), mostFrames: int64(frames),
		bytes: semaphore.NewWeighted(bytes), mostBytes: bytes,
	}
}

// frameCost is what a frame takes besides its bytes.
const frameCost = 512

// weight of a frame; a frame larger than the window has it for itself.
func (w *window) weight(size int) int64 { return min(int64(size)+frameCost, w.mostBytes) }

// enter waits for room for a frame of size bytes.
func (w *window) enter(ctx context.Context, size int) error {
	if err := w.frames.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("waiting for a place in the window: %w", err)
	}
	if err := w.bytes.Acquire(ctx, w.weight(size)); err != nil {
		w.frames.Release(1)
		return fmt.Errorf("waiting for room in the window: %w", err)
	}
	w.framesIn.Add(1)
	w.bytesIn.Add(w.weight(size))
	return nil
}

// leave gives back what enter took.
func (w *window) leave(size int) {
	w.framesIn.Add(-1)
	w.bytesIn.Add(-w.weight(size))
	w.frames.Release(1)
	w.bytes.Release(w.weight(size))
}

// crowded tells whether it is more than half full: frames come in faster than they
// are applied.
func (w *window) crowded() bool {
	return w.framesIn.Load() > w.mostFrames/2 || w.bytesIn.Load() > w.mostBytes/2
}

// drained waits until every frame that entered has left.
func (w *window) drained(ctx context.Context) error {
	for w.framesIn.Load() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

package indexer

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// lag is how old the last applied commit was when it was applied, and beyond that, how
// long nothing has been applied though frames wait: a line that is stuck falls behind
// by a second each second.
var lag = newLagClock()

func init() {
	promauto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "layers_firehose_cursor_lag_seconds",
		Help: "Age of the last applied commit when it was applied, and the time since then while frames wait.",
	}, func() float64 { return lag.seconds() })
}

type lagClock struct {
	began   time.Time
	age     atomic.Int64 // of the last applied commit
	waiting atomic.Int64 // frames that have come and are not applied
	moved   atomic.Int64 // when the last were applied, or when one came while none waited; since began
}

func newLagClock() *lagClock { return &lagClock{began: time.Now()} }

func (l *lagClock) move() { l.moved.Store(int64(time.Since(l.began))) }

// came counts a frame in.
func (l *lagClock) came() {
	if l.waiting.Add(1) == 1 {
		l.move()
	}
}

// left counts frames out.
func (l *lagClock) left(frames int) {
	l.move()
	l.waiting.Add(int64(-frames))
}

func (l *lagClock) applied(age time.Duration) { l.age.Store(int64(max(age, 0))) }

func (l *lagClock) seconds() float64 {
	behind := time.Duration(l.age.Load())
	if l.waiting.Load() > 0 {
		behind += time.Since(l.began) - time.Duration(l.moved.Load())
	}
	return behind.Seconds()
}

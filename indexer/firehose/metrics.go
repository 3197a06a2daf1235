package firehose

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	framesRead = promauto.NewCounter(prometheus.CounterOpts{
		Name: "layers_firehose_frames_total", Help: "Frames read from the firehose socket.",
	})
	bytesRead = promauto.NewCounter(prometheus.CounterOpts{
		Name: "layers_firehose_bytes_total", Help: "Bytes of the frames read from the firehose socket.",
	})
	reconnects = promauto.NewCounter(prometheus.CounterOpts{
		Name: "layers_firehose_reconnects_total", Help: "Connections to the firehose that ended and were taken up again.",
	})
)

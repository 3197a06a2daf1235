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
	lastFrame = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "layers_firehose_last_frame_timestamp_seconds", Help: "When the last frame was read; time() minus it is its age.",
	})
	lag = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "layers_firehose_lag_seconds", Help: "Between an event, by its own time, and our reading it; of the last frame, once a second.",
	})
	connected = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "layers_firehose_connected", Help: "1 for the host that is followed.",
	}, []string{"host"})
	reconnects = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_firehose_reconnects_total", Help: "Connections to the firehose that ended and were taken up again, by reason.",
	}, []string{"reason"})
	stalls = promauto.NewCounter(prometheus.CounterOpts{
		Name: "layers_firehose_stalls_total", Help: "Connections given up because nothing came though the host had events.",
	})
	probes = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "layers_firehose_probes_total", Help: "Questions to a host from which nothing came: ahead, level, or unknown where it could not be asked.",
	}, []string{"result"})
	failovers = promauto.NewCounter(prometheus.CounterOpts{
		Name: "layers_firehose_failovers_total", Help: "Changes to the next host after repeated failures of one.",
	})
)

package appview

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/labstack/echo/v4"

	"github.com/layers-pub/layers-appview/appview/live"
)

// packer is a compressor that can be used again.
type packer interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

// codings are the content codings that answers may have, the preferred one first.
var codings = []struct {
	name string
	pool sync.Pool
}{
	{name: "zstd", pool: sync.Pool{New: func() any {
		// A small window bounds what an answer takes, here and at the client.
		w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // the options are constants
		}
		return w
	}}},
	{name: "gzip", pool: sync.Pool{New: func() any {
		w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
		if err != nil {
			panic(err) // the level is a constant
		}
		return w
	}}},
}

// compressed packs answers for clients that accept it, from a size on that is worth
// the work. What a handler flushes is packed at any size: that is a stream.
func compressed(least int) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			res := c.Response()
			res.Header().Add(echo.HeaderVary, echo.HeaderAcceptEncoding)
			coding := accepted(c.Request().Header.Values(echo.HeaderAcceptEncoding))
			if coding < 0 || c.Request().Method == http.MethodHead {
				return next(c)
			}
			w := &packedWriter{ResponseWriter: res.Writer, coding: coding, least: least}
			res.Writer = w
			defer func() {
				res.Writer = w.ResponseWriter
				w.finish()
			}()
			err := next(c)
			if err != nil {
				c.Error(err) // so that it is written before the answer is finished
			}
			return nil
		}
	}
}

// accepted is the index of the coding to use; -1 for none.
func accepted(fields []string) int {
	best, most := -1, 0.0
	quality := map[string]float64{}
	for item := range strings.SplitSeq(strings.Join(fields, ","), ",") {
		name, params, _ := strings.Cut(item, ";")
		q := 1.0
		if text, ok := strings.CutPrefix(strings.TrimSpace(params), "q="); ok {
			q, _ = strconv.ParseFloat(text, 64) // what is malformed is not accepted
		}
		quality[strings.ToLower(strings.TrimSpace(name))] = q
	}
	for i := range codings {
		q, named := quality[codings[i].name]
		if !named && codings[i].name == "gzip" { // "*" may come from a client that does not know zstd
			q = quality["*"]
		}
		if q > most {
			best, most = i, q
		}
	}
	return best
}

// packedWriter holds an answer back until it knows whether to pack it.
type packedWriter struct {
	http.ResponseWriter
	coding int
	least  int

	status  int
	held    []byte
	decided bool
	packer  packer // nil while or where the answer goes out as it is
}

func (w *packedWriter) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	w.status = status
	if status < 200 || status == http.StatusNoContent || status == http.StatusNotModified {
		w.decide(false)
	}
}

func (w *packedWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !w.decided {
		if len(w.held)+len(p) < w.least {
			w.held = append(w.held, p...)
			return len(p), nil
		}
		w.decide(w.packable())
	}
	if err := w.release(); err != nil {
		return 0, err
	}
	return w.body().Write(p)
}

// packable tells whether packing would do any good: events are small, come one by one,
// and would each pay for a compressor that is kept for as long as somebody follows.
func (w *packedWriter) packable() bool {
	return w.Header().Get(echo.HeaderContentEncoding) == "" && w.Header().Get(echo.HeaderContentType) != live.MediaEvents
}

// decide sends the header.
func (w *packedWriter) decide(pack bool) {
	w.decided = true
	if pack {
		w.Header().Set(echo.HeaderContentEncoding, codings[w.coding].name)
		w.Header().Del(echo.HeaderContentLength)
		w.packer = codings[w.coding].pool.Get().(packer)
		w.packer.Reset(w.ResponseWriter)
	}
	w.ResponseWriter.WriteHeader(w.status)
}

func (w *packedWriter) body() io.Writer {
	if w.packer != nil {
		return w.packer
	}
	return w.ResponseWriter
}

// release sends what was held back.
func (w *packedWriter) release() error {
	held := w.held
	w.held = nil
	if len(held) == 0 {
		return nil
	}
	_, err := w.body().Write(held)
	return err
}

// FlushError sends what there is to the client; [http.ResponseController] calls it.
func (w *packedWriter) FlushError() error {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	if !w.decided {
		w.decide(w.packable())
	}
	if err := w.release(); err != nil {
		return err
	}
	if w.packer != nil {
		if err := w.packer.Flush(); err != nil {
			return err
		}
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush is FlushError for those who do not ask how it went.
func (w *packedWriter) Flush() { _ = w.FlushError() }

// Unwrap gives [http.ResponseController] the connection's own writer.
func (w *packedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack hands the connection over, as for a WebSocket.
func (w *packedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.decided = true
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// finish sends the rest. A small answer goes out as it is. Errors are those of a
// client that has gone.
func (w *packedWriter) finish() {
	if w.status != 0 && !w.decided {
		w.decide(false)
	}
	if w.decided && w.status != 0 {
		_ = w.release()
	}
	if w.packer == nil {
		return
	}
	_ = w.packer.Close()
	w.packer.Reset(nil)
	codings[w.coding].pool.Put(w.packer)
	w.packer = nil
}

package simulate

import (
	"context"
	"net/http"
	"strconv"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/cmd/relay/stream"
	"github.com/gorilla/websocket"
)

// batch is how many frames a subscription reads from the log at once.
const batch = 64

var upgrader = websocket.Upgrader{
	WriteBufferSize: 64 << 10,
	CheckOrigin:     func(*http.Request) bool { return true }, // it holds no secrets
}

// subscribe serves com.atproto.sync.subscribeRepos. Without a cursor it sends what
// happens from now on; with one, everything after it that the log still holds,
// with an #info OutdatedCursor first where some is gone, and an error frame
// FutureCursor where the cursor is ahead.
func (s *Server) subscribe(out http.ResponseWriter, in *http.Request) {
	log := s.source.stream()
	cursor := log.last()
	given := in.URL.Query().Has("cursor")
	if given {
		n, err := strconv.ParseInt(in.URL.Query().Get("cursor"), 10, 64)
		if err != nil {
			writeError(out, invalid("cursor must be an integer"))
			return
		}
		cursor = n
	}
	conn, err := upgrader.Upgrade(out, in, nil)
	if err != nil {
		return // Upgrade has answered
	}
	s.streams.Add(1)
	defer s.streams.Done()
	ctx, cancel := context.WithCancel(in.Context())
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // also frees a blocked write
	defer conn.Close()
	go discardInput(conn, cancel)
	if given && cursor > log.last() {
		s.refuse(conn)
		return
	}
	if given && cursor < log.lost() {
		message := "the cursor is older than what this host keeps"
		info := &comatproto.SyncSubscribeRepos_Info{Name: "OutdatedCursor", Message: &message}
		if !s.send(conn, &stream.XRPCStreamEvent{RepoInfo: info}) {
			return
		}
	}
	s.follow(ctx, conn, log, cursor)
}

// discardInput reads what the client sends, which is nothing but control
// messages, and notices when it leaves.
func discardInput(conn *websocket.Conn, gone context.CancelFunc) {
	defer gone()
	for {
		if _, _, err := conn.NextReader(); err != nil {
			return
		}
	}
}

func (s *Server) refuse(conn *websocket.Conn) {
	s.send(conn, &stream.XRPCStreamEvent{Error: &stream.ErrorFrame{
		Error: "FutureCursor", Message: "the cursor is ahead of this host",
	}})
	_ = conn.WriteControl(websocket.CloseMessage,
		websocket.FormatCloseMessage(websocket.ClosePolicyViolation, "FutureCursor"), time.Now().Add(time.Second))
}

func (s *Server) send(conn *websocket.Conn, e *stream.XRPCStreamEvent) bool {
	data, err := encodeFrame(e)
	if err != nil {
		s.cfg.Logger.Error("encode stream message", "error", err)
		return false
	}
	return conn.WriteMessage(websocket.BinaryMessage, data) == nil
}

// follow sends all frames after the cursor until the client or the log is gone.
func (s *Server) follow(ctx context.Context, conn *websocket.Conn, log *frameLog, cursor int64) {
	deliver := func(_ context.Context, f Frame) ([]Frame, error) { return []Frame{f}, nil }
	if s.cfg.Subscribe != nil {
		deliver = s.cfg.Subscribe(cursor)
	}
	ping := time.NewTicker(s.cfg.Ping)
	defer ping.Stop()
	for ctx.Err() == nil {
		frames, grown, err := log.after(cursor, batch)
		if err != nil {
			s.cfg.Logger.Error("read frame log", "error", err)
			return
		}
		for _, f := range frames {
			if !s.sendFrame(ctx, conn, f, deliver) {
				return
			}
			cursor = f.Seq
		}
		if len(frames) > 0 {
			continue
		}
		if grown == nil {
			return
		}
		select {
		case <-grown:
		case <-ping.C:
			if conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(10*time.Second)) != nil {
				return
			}
		case <-ctx.Done():
		}
	}
}

func (s *Server) sendFrame(ctx context.Context, conn *websocket.Conn, f Frame, deliver Delivery) bool {
	frames, err := deliver(ctx, f)
	for _, f := range frames {
		messages := [][]byte{f.Data}
		if s.cfg.Alter != nil {
			messages = s.cfg.Alter(f)
		}
		for _, m := range messages {
			if conn.WriteMessage(websocket.BinaryMessage, m) != nil {
				return false
			}
		}
	}
	return err == nil
}

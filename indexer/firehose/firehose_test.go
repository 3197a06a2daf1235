package firehose

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/cmd/relay/stream"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
)

// none stands for a subscription without a cursor.
const none = -1

// host is a server of subscribeRepos whose connections the test scripts: serve gets
// the cursor, or none, and the number of the connection, from zero.
func host(t *testing.T, serve func(conn *websocket.Conn, cursor int64, nth int)) string {
	t.Helper()
	var mu sync.Mutex
	connections := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cursor, err := int64(none), error(nil)
		if r.URL.Query().Has("cursor") {
			cursor, err = strconv.ParseInt(r.URL.Query().Get("cursor"), 10, 64)
		}
		if err != nil || r.URL.Path != "/xrpc/com.atproto.sync.subscribeRepos" {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		mu.Lock()
		nth := connections
		connections++
		mu.Unlock()
		serve(conn, cursor, nth)
	}))
	t.Cleanup(server.Close)
	return "ws" + strings.TrimPrefix(server.URL, "http")
}

func identityFrame(t *testing.T, seq int64) []byte {
	t.Helper()
	var buf bytes.Buffer
	event := stream.XRPCStreamEvent{RepoIdentity: &comatproto.SyncSubscribeRepos_Identity{Did: "did:plc:abc", Seq: seq, Time: "2026-01-01T00:00:00Z"}}
	require.NoError(t, event.Serialize(&buf))
	return buf.Bytes()
}

func send(conn *websocket.Conn, data []byte) { _ = conn.WriteMessage(websocket.BinaryMessage, data) }

func testClient(hosts ...string) *Client {
	return New(Config{Hosts: hosts, MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}, nil)
}

var errEnough = errors.New("enough")

// collect runs a client until n events have come, resuming behind the last of them.
func collect(t *testing.T, c *Client, n int) []Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got []Event
	cursors := func(context.Context, string) (int64, bool, error) {
		if len(got) == 0 {
			return 0, false, nil
		}
		return got[len(got)-1].Seq, true, nil
	}
	err := c.Run(ctx, cursors, func(f Frame) error {
		event, err := f.Decode()
		if err != nil {
			return nil
		}
		if got = append(got, event); len(got) == n {
			return errEnough
		}
		return nil
	})
	require.ErrorIs(t, err, errEnough)
	return got
}

func TestReconnectsFromTheCursor(t *testing.T) {
	t.Parallel()
	var cursors []int64
	url := host(t, func(conn *websocket.Conn, cursor int64, nth int) {
		cursors = append(cursors, cursor)
		for seq := cursor + 1; seq <= cursor+3; seq++ {
			send(conn, identityFrame(t, seq))
		}
	})
	got := collect(t, testClient(url), 9)
	for i, event := range got {
		require.EqualValues(t, i+1, event.Seq)
	}
	require.Equal(t, []int64{0, 3, 6}, cursors[:3])
}

func TestFailsOverToTheNextHost(t *testing.T) {
	t.Parallel()
	url := host(t, func(conn *websocket.Conn, cursor int64, _ int) { send(conn, identityFrame(t, cursor+1)) })
	got := collect(t, testClient("ws://127.0.0.1:1", url), 1)
	require.Equal(t, "did:plc:abc", got[0].Identity.Did)
}

func TestReadsPastAnOversizedFrame(t *testing.T) {
	t.Parallel()
	url := host(t, func(conn *websocket.Conn, cursor int64, nth int) {
		if nth > 0 {
			t.Error("the oversized frame cost the connection")
		}
		send(conn, make([]byte, MaxFrame+1))
		send(conn, identityFrame(t, 2))
		_, _, _ = conn.ReadMessage()
	})
	var sizes []int64
	err := testClient(url).Run(t.Context(), func(context.Context, string) (int64, bool, error) { return 0, false, nil },
		func(f Frame) error {
			if sizes = append(sizes, f.Size); len(sizes) == 2 {
				return errEnough
			}
			_, err := f.Decode()
			require.ErrorIs(t, err, ErrFrame)
			require.LessOrEqual(t, len(f.Data), MaxFrame)
			return nil
		})
	require.ErrorIs(t, err, errEnough)
	require.EqualValues(t, MaxFrame+1, sizes[0])
}

func TestSilentSocketCountsAsDead(t *testing.T) {
	t.Parallel()
	url := host(t, func(conn *websocket.Conn, cursor int64, nth int) {
		if nth == 0 {
			time.Sleep(2 * time.Second) // reads nothing, so answers no ping
			return
		}
		send(conn, identityFrame(t, 1))
	})
	c := New(Config{Hosts: []string{url}, MinBackoff: time.Millisecond, Silence: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}, nil)
	require.Len(t, collect(t, c, 1), 1)
}

func TestQuietSocketThatAnswersPingsIsKept(t *testing.T) {
	t.Parallel()
	url := host(t, func(conn *websocket.Conn, cursor int64, nth int) {
		if nth > 0 {
			t.Error("a quiet connection was given up")
		}
		go func() {
			time.Sleep(4 * time.Second)
			send(conn, identityFrame(t, 1))
		}()
		_, _, _ = conn.ReadMessage() // answers pings
	})
	c := New(Config{Hosts: []string{url}, Silence: 1500 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}, nil)
	require.Len(t, collect(t, c, 1), 1)
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	url := host(t, func(conn *websocket.Conn, cursor int64, _ int) {
		cancel()
		_, _, _ = conn.ReadMessage()
	})
	err := testClient(url).Run(ctx, func(context.Context, string) (int64, bool, error) { return 0, false, nil }, func(Frame) error { return nil })
	require.ErrorIs(t, err, context.Canceled)
}

func TestDecode(t *testing.T) {
	t.Parallel()
	var failed bytes.Buffer
	require.NoError(t, (&stream.XRPCStreamEvent{Error: &stream.ErrorFrame{Error: "FutureCursor", Message: "ahead"}}).Serialize(&failed))
	_, err := Frame{Data: failed.Bytes()}.Decode()
	var ended *StreamError
	require.ErrorAs(t, err, &ended)
	require.Equal(t, "FutureCursor", ended.Name)

	unknown := append([]byte{0xa2, 0x62, 'o', 'p', 0x01, 0x61, 't', 0x64, '#', 'n', 'e', 'w'}, 0xa0)
	event, err := Frame{Data: unknown}.Decode()
	require.NoError(t, err, "an unknown message type passes by")
	require.Equal(t, Event{}, event)
}

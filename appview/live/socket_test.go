package live_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/appview/live"
)

// dial connects to the subscription.
func (p *process) dial(params url.Values) *websocket.Conn {
	p.t.Helper()
	conn, response, err := websocket.DefaultDialer.DialContext(p.t.Context(), strings.Replace(p.base, "http", "ws", 1)+"/xrpc/"+live.Method+"?"+params.Encode(), nil)
	require.NoError(p.t, err)
	require.Equal(p.t, http.StatusSwitchingProtocols, response.StatusCode)
	p.t.Cleanup(func() { conn.Close() })
	return conn
}

// frame reads a binary frame of XRPC: its header and its body.
func frame(t *testing.T, conn *websocket.Conn) (header, body map[string]any) {
	t.Helper()
	kind, content, err := conn.ReadMessage()
	require.NoError(t, err)
	require.Equal(t, websocket.BinaryMessage, kind)
	for at := 1; at < len(content); at++ { // the first object ends where both parse
		first, err := atdata.UnmarshalCBOR(content[:at])
		if err != nil {
			continue
		}
		second, err := atdata.UnmarshalCBOR(content[at:])
		if err != nil {
			continue
		}
		return first, second
	}
	require.Fail(t, "no two objects", "%x", content)
	return nil, nil
}

func TestTheSubscriptionSpeaksXRPC(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.serve(live.Config{FutureWait: time.Millisecond})
	conn := p.dial(url.Values{"collection": {string(expressions)}, "include": {"value"}})
	header, body := frame(t, conn)
	require.Equal(t, map[string]any{"op": int64(1), "t": "#position"}, header)
	begin := body["cursor"].(int64)
	k := key(alice, expressions, "one")
	w.commit(w.put(key(alice, layers, "other")), w.put(k))
	header, body = frame(t, conn)
	require.Equal(t, map[string]any{"op": int64(1), "t": "#record"}, header)
	require.Equal(t, "create", body["action"])
	require.Equal(t, k.String(), body["uri"])
	require.Equal(t, map[string]any{"$type": string(expressions), "n": int64(2)}, body["value"])
	w.commit(w.remove(k))
	header, body = frame(t, conn)
	require.Equal(t, "#record", header["t"])
	require.Equal(t, "delete", body["action"])
	require.NotContains(t, body, "cid")
	w.status(alice, "suspended")
	header, body = frame(t, conn)
	require.Equal(t, "#account", header["t"])
	require.Equal(t, false, body["active"])
	require.Equal(t, "suspended", body["status"])

	conn = p.dial(url.Values{"cursor": {strconv.FormatInt(begin+1000, 10)}})
	header, body = frame(t, conn)
	require.Equal(t, map[string]any{"op": int64(-1)}, header)
	require.Equal(t, "FutureCursor", body["error"])
	_, _, err := conn.ReadMessage()
	require.True(t, websocket.IsCloseError(err, websocket.ClosePolicyViolation), "%v", err)
}

// TestBothTransportsTellTheSame also goes on at one where the other was left.
func TestBothTransportsTellTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.serve(live.Config{})
	events := p.follow("")
	conn := p.dial(url.Values{"format": {"json"}, "cursor": {strconv.FormatInt(events.lastID, 10)}})
	for i := range 5 {
		w.commit(w.put(key(alice, expressions, fmt.Sprint(i))))
	}
	read := func() message {
		for {
			kind, content, err := conn.ReadMessage()
			require.NoError(t, err)
			require.Equal(t, websocket.TextMessage, kind)
			require.False(t, bytes.ContainsRune(content, '\n'))
			var m message
			require.NoError(t, json.Unmarshal(content, &m))
			if m.Kind != "position" {
				return m
			}
		}
	}
	for _, m := range events.take(5) {
		require.Equal(t, m, read())
	}
	p.Drain(t.Context())
	require.Equal(t, "GoingAway", read().Name)
	_, _, err := conn.ReadMessage()
	require.True(t, websocket.IsCloseError(err, websocket.CloseServiceRestart), "%v", err)
}

func TestHeartbeats(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.serve(live.Config{Heartbeat: 20 * time.Millisecond})
	conn := p.dial(url.Values{"collection": {string(layers)}})
	pinged := 0
	conn.SetPingHandler(func(string) error {
		pinged++
		return conn.WriteControl(websocket.PongMessage, nil, time.Now().Add(patience))
	})
	_, body := frame(t, conn)
	begin := body["cursor"].(int64)
	w.commit(w.put(key(alice, expressions, "not asked for")))
	for body["cursor"].(int64) == begin { // so that the cursor of who waits for something rare does not get too old
		_, body = frame(t, conn)
	}
	require.Positive(t, pinged)
	events := p.follow("collection=" + string(layers))
	at := events.lastID
	w.commit(w.put(key(alice, expressions, "nor this")))
	for events.lastID == at {
		data, err := events.block()
		require.NoError(t, err)
		require.Empty(t, data)
	}
}

func TestWithoutAWebSocket(t *testing.T) {
	t.Parallel()
	p := newWorld(t).serve(live.Config{})
	require.Equal(t, http.StatusUpgradeRequired, p.get("/xrpc/"+live.Method).StatusCode)
	response, err := http.Post(p.base+"/xrpc/"+live.Method, "", nil)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusMethodNotAllowed, response.StatusCode)
}

func TestPagesOfOriginsThatAreNotListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.serve(live.Config{Origins: []string{"https://tool.example"}})
	for origin, may := range map[string]bool{
		"": true, "https://tool.example": true, p.base: true, "https://other.example": false, "null": false, "https://tool.example.evil.example": false,
	} {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		conn, response, err := websocket.DefaultDialer.DialContext(t.Context(), strings.Replace(p.base, "http", "ws", 1)+"/xrpc/"+live.Method, header)
		require.Equal(t, may, err == nil, "%q: %v", origin, err)
		if may {
			require.NoError(t, conn.Close())
		} else {
			require.Equal(t, http.StatusForbidden, response.StatusCode, origin)
		}
	}
}

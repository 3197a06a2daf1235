package live

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	"github.com/labstack/echo/v4"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/catalog"
)

// Method is the NSID of the subscription. Its lexicon is here and not among the others:
// those are the contract of all who write and read layers, this one is of this service.
const Method = "pub.layers.appview.subscribeEvents"

// Lexicon declares the subscription.
//
//go:embed subscribeEvents.json
var Lexicon []byte

// SocketParams are the parameters of the subscription.
func SocketParams() []catalog.Param {
	return append(Params(), catalog.Param{
		Name: "format", Type: catalog.String, Enum: []string{"cbor", "json"}, Default: "cbor",
		Description: "json: text frames, each an object as a server-sent event has it, in place of the binary frames of XRPC.",
	})
}

const (
	mostReceived = 4 << 10     // bytes of a frame of the client's, which has nothing to say
	aliveTime    = time.Minute // in which a client answers a ping, of which there are several
)

// Mount adds the subscription's route.
func (s *Service) Mount(e *echo.Echo) {
	endpoint := xrpc.NewEndpoint(&catalog.Query{NSID: Method, Params: SocketParams()})
	e.Any("/xrpc/"+Method, func(c echo.Context) error {
		c.Response().Header().Set(echo.HeaderAllow, "GET, OPTIONS")
		return &xrpc.Error{Status: http.StatusMethodNotAllowed, Name: "InvalidRequest", Message: Method + " is a subscription: expected HTTP method GET"}
	})
	e.GET("/xrpc/"+Method, func(c echo.Context) error { return s.subscribe(c, endpoint) })
}

// Streams tells whether a request is for the subscription, which sees to its time itself.
func (s *Service) Streams(c echo.Context) bool { return c.Path() == "/xrpc/"+Method }

// upgrader refuses pages of origins that are not listed, whom browsers do not keep from
// opening a WebSocket. Who is no browser names no origin.
func (s *Service) upgrader() *websocket.Upgrader {
	return &websocket.Upgrader{
		HandshakeTimeout: 10 * time.Second,
		WriteBufferSize:  4 << 10,
		CheckOrigin: func(r *http.Request) bool {
			origin := r.Header.Get(echo.HeaderOrigin)
			return origin == "" || Listed(s.cfg.Origins, origin) || ofHost(origin, r.Host)
		},
	}
}

// Listed tells whether an origin is among those of a list; "*" stands for any, and so
// does an empty list.
func Listed(origins []string, origin string) bool {
	return len(origins) == 0 || slices.ContainsFunc(origins, func(o string) bool { return o == "*" || strings.EqualFold(o, origin) })
}

// ofHost tells whether an origin is that of the service itself.
func ofHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

func (s *Service) subscribe(c echo.Context, endpoint *xrpc.Endpoint) error {
	if !websocket.IsWebSocketUpgrade(c.Request()) {
		c.Response().Header().Set(echo.HeaderUpgrade, "websocket")
		return &xrpc.Error{Status: http.StatusUpgradeRequired, Name: "InvalidRequest", Message: Method + " is a subscription: connect to it by WebSocket"}
	}
	args, err := endpoint.Parse(c.Request().URL.RawQuery)
	if err != nil {
		return err
	}
	q, err := s.Ask(c.Request().Context(), &args)
	if err != nil {
		return err
	}
	leave, err := s.enter(c.RealIP())
	if err != nil {
		return err
	}
	defer leave()
	place, end, outdated, err := s.start(c.Request().Context(), &q)
	wrong := (*xrpc.Error)(nil)
	if err != nil && (!errors.As(err, &wrong) || wrong.Name != futureCursor) {
		return err
	}
	conn, err := s.upgrader().Upgrade(c.Response(), c.Request(), nil)
	if err != nil {
		return xrpc.InvalidRequest("the upgrade to a WebSocket failed: %v", err)
	}
	c.Response().Status, c.Response().Committed = http.StatusSwitchingProtocols, true
	defer conn.Close()
	format, _ := args.Text("format")
	out := &socketSink{conn: conn, time: s.cfg.SendTime, json: format == "json"}
	if wrong != nil { // as XRPC has it, the connection is made and then told
		_ = s.gone(out.failure(notice{wrong.Name, wrong.Message, *q.cursor}))
		out.close(websocket.ClosePolicyViolation, wrong.Name)
		return nil
	}
	followingSocket.Inc()
	defer followingSocket.Dec()
	ctx, cancel := context.WithCancel(c.Request().Context())
	defer cancel()
	go listen(conn, aliveTime, cancel)
	err = s.follow(ctx, q, place, end, outdated, out)
	if err == nil && ctx.Err() == nil {
		out.close(websocket.CloseServiceRestart, "connect again")
	}
	return s.gone(err)
}

// listen reads what a client sends, to learn that it lives and when it goes.
func listen(conn *websocket.Conn, within time.Duration, gone func()) {
	defer gone()
	conn.SetReadLimit(mostReceived)
	alive := func(string) error { return conn.SetReadDeadline(time.Now().Add(within)) }
	if alive("") != nil {
		return
	}
	conn.SetPongHandler(alive)
	for {
		if _, _, err := conn.ReadMessage(); err != nil {
			return
		}
		if alive("") != nil {
			return
		}
	}
}

// socketSink writes frames.
type socketSink struct {
	conn *websocket.Conn
	time time.Duration // for each write
	json bool
}

func (o *socketSink) event(i *item, value json.RawMessage) error {
	if o.json {
		text, err := i.text(value)
		if err != nil {
			return err
		}
		return o.write(websocket.TextMessage, text)
	}
	return o.message(messageOf(&i.Event, value))
}

func (o *socketSink) info(n notice) error    { return o.message(infoOf(n)) }
func (o *socketSink) failure(n notice) error { return o.message(errorOf(n)) }

// position comes with a ping, whose answer shows that the client lives.
func (o *socketSink) position(cursor int64) error {
	if err := o.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(o.time)); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return o.message(message{Kind: kindPosition, Cursor: cursor})
}

func (o *socketSink) message(m message) error {
	kind, encode := websocket.BinaryMessage, m.frame
	if o.json {
		kind, encode = websocket.TextMessage, m.text
	}
	content, err := encode()
	if err != nil {
		return err
	}
	return o.write(kind, content)
}

func (o *socketSink) write(kind int, content []byte) error {
	if err := o.conn.SetWriteDeadline(time.Now().Add(o.time)); err != nil {
		return fmt.Errorf("extend the time to send: %w", err)
	}
	if err := o.conn.WriteMessage(kind, content); err != nil {
		return fmt.Errorf("send a frame: %w", err)
	}
	return nil
}

// flush has nothing to do: each frame goes out by itself.
func (o *socketSink) flush() error { return nil }

func (o *socketSink) close(code int, reason string) {
	// The client may have gone already.
	_ = o.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(time.Second))
}

package live_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/appview/live"
	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

const (
	expressions syntax.NSID = "pub.layers.expression.expression"
	layers      syntax.NSID = "pub.layers.annotation.annotationLayer"

	alice syntax.DID = "did:plc:aliceaaaaaaaaaaaaaaaaaaaa"
	bob   syntax.DID = "did:plc:bobbbbbbbbbbbbbbbbbbbbbbb"

	patience = time.Minute
)

// world is a database that a writer changes. Any number of processes serve its events.
type world struct {
	*storetest.Database
	t      *testing.T
	writer *store.Writer
	n      int // of the last commit
}

func newWorld(t *testing.T) *world {
	t.Helper()
	db := storetest.New(t, store.Partition{Collection: expressions}, store.Partition{Collection: layers})
	return &world{Database: db, t: t, writer: db.Writer(t, store.Routes{})}
}

// process is a service as an API process has it, and where it listens.
type process struct {
	*live.Service
	t    *testing.T
	base string
}

func (w *world) serve(cfg live.Config) *process {
	w.t.Helper()
	known, err := catalog.Load()
	require.NoError(w.t, err)
	reader := store.NewReader(w.Reads(w.t))
	if cfg.Poll == 0 {
		cfg.Poll = 10 * time.Millisecond
	}
	s := live.New(cfg, reader, xrpc.New(known, reader, nil), slog.New(slog.DiscardHandler))
	e := echo.New()
	e.HTTPErrorHandler = xrpc.ErrorHandler(slog.New(slog.DiscardHandler))
	s.Mount(e)
	endpoint := xrpc.NewEndpoint(&catalog.Query{NSID: "rest.events", Params: live.Params()})
	e.GET("/events", func(c echo.Context) error {
		args, err := endpoint.Parse(c.Request().URL.RawQuery)
		if err != nil {
			return err
		}
		return s.ServeEvents(c, &args, c.QueryParam("wait") != "false")
	})
	server := httptest.NewServer(e)
	w.t.Cleanup(func() {
		s.Drain(w.t.Context()) // has ended: nobody is waited for
		server.CloseClientConnections()
		server.Close()
	})
	return &process{Service: s, t: w.t, base: server.URL}
}

// commit applies changes as one transaction.
func (w *world) commit(changes ...store.Change) {
	w.t.Helper()
	require.NoError(w.t, w.writer.Apply(w.t.Context(), store.Batch{Changes: changes}))
}

func key(did syntax.DID, collection syntax.NSID, rkey string) record.Key {
	return record.Key{DID: did, Collection: collection, Rkey: syntax.RecordKey(rkey)}
}

func cid(n int) syntax.CID { return syntax.CID(fmt.Sprintf("bafyreia%051d", n)) }

// put makes or changes a record; each is another commit.
func (w *world) put(k record.Key, targets ...string) store.Change {
	w.n++
	c := store.Change{
		Action: record.Create, Key: k, Rev: syntax.TID(fmt.Sprintf("3k%011d", w.n)), CID: cid(w.n),
		JSON: json.RawMessage(fmt.Sprintf(`{"$type":%q,"n":%d}`, k.Collection, w.n)),
	}
	for _, target := range targets {
		c.Refs = append(c.Refs, record.Ref{Path: "expression", Target: syntax.ATURI(target)})
	}
	return c
}

func (w *world) remove(k record.Key) store.Change {
	w.n++
	return store.Change{Action: record.Delete, Key: k, Rev: syntax.TID(fmt.Sprintf("3k%011d", w.n))}
}

// status makes the account's status another.
func (w *world) status(did syntax.DID, status string) {
	w.t.Helper()
	active := status == "active"
	require.NoError(w.t, w.writer.Apply(w.t.Context(), store.Batch{Repos: []store.RepoUpdate{{DID: did, Active: &active, Status: &status}}}))
}

// message is what a follower is sent.
type message struct {
	Kind, Action, URI, CID, Collection, DID, Status, Name, Error, Message, Time string
	Cursor                                                                      int64
	Active                                                                      *bool
	Value                                                                       json.RawMessage
}

// short is the message as tests compare it.
func (m message) short() string {
	switch m.Kind {
	case "record":
		return m.Action + " " + m.URI[strings.LastIndex(m.URI, "/")+1:]
	case "account":
		return m.DID[:9] + " " + strconv.FormatBool(*m.Active) + " " + m.Status
	case "info":
		return m.Name
	}
	return m.Error
}

// reading is a client of server-sent events.
type reading struct {
	t      *testing.T
	body   io.ReadCloser
	lines  *bufio.Reader
	lastID int64 // -1: none yet
}

// follow asks for events and requires that they are there to be read.
func (p *process) follow(params string, header ...string) *reading {
	p.t.Helper()
	response := p.get("/events?"+params, header...)
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		require.Equal(p.t, http.StatusOK, response.StatusCode, string(body))
	}
	require.Equal(p.t, live.MediaEvents, response.Header.Get("Content-Type"))
	r := &reading{t: p.t, body: response.Body, lines: bufio.NewReaderSize(response.Body, 512), lastID: -1}
	if !strings.Contains(params, "wait=false") && !strings.Contains(params, "cursor") {
		r.position() // from here on, nothing is missed
	}
	return r
}

func (p *process) get(path string, header ...string) *http.Response {
	p.t.Helper()
	request, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.base+path, nil)
	require.NoError(p.t, err)
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(p.t, err)
	p.t.Cleanup(func() { response.Body.Close() })
	return response
}

// block reads up to the next empty line; id and data as far as it has them.
func (r *reading) block() (data string, err error) {
	for {
		line, err := r.lines.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "":
			return data, nil
		case name == "id":
			if r.lastID, err = strconv.ParseInt(value, 10, 64); err != nil {
				return "", err
			}
		case name == "data":
			data = value
		}
	}
}

// position reads up to the first event without data but with an id.
func (r *reading) position() {
	r.t.Helper()
	for r.lastID < 0 {
		data, err := r.block()
		require.NoError(r.t, err)
		require.Empty(r.t, data)
	}
}

// next reads the next event with data.
func (r *reading) next() (message, error) {
	for {
		data, err := r.block()
		if err != nil {
			return message{}, err
		}
		if data == "" {
			continue
		}
		var m message
		if err := json.Unmarshal([]byte(data), &m); err != nil {
			return m, err
		}
		if m.Cursor != r.lastID {
			return m, fmt.Errorf("the cursor is %d and the id %d", m.Cursor, r.lastID)
		}
		return m, nil
	}
}

// take reads so many events.
func (r *reading) take(n int) (all []message) {
	r.t.Helper()
	for range n {
		m, err := r.next()
		require.NoError(r.t, err)
		all = append(all, m)
	}
	return all
}

// rest reads to the end of the stream.
func (r *reading) rest() (all []message) {
	r.t.Helper()
	for {
		m, err := r.next()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(r.t, err)
		all = append(all, m)
	}
}

func shorts(all []message) (lines []string) {
	for _, m := range all {
		lines = append(lines, m.short())
	}
	return lines
}

// present asks for what there is, to its end.
func (p *process) present(params url.Values) []message {
	p.t.Helper()
	params.Set("wait", "false")
	return p.follow(params.Encode()).rest()
}

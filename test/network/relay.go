package network

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/bluesky-social/indigo/cmd/relay/stream"
	"github.com/gorilla/websocket"
)

// Relay joins the event streams of the network's PDSes into one with sequence
// numbers of its own, as a relay of the real network does. What the events say
// and carry stays as the PDSes made it. It also tells whom a handle of theirs
// names, since those are in no DNS.
//
// It checks no more than that an event comes from the PDS that the account's DID
// document names: what a former host says of an account does not count. The relay
// program of the real network checks signatures too, but it refuses hosts on loopback.
type Relay struct {
	URL string // ws://, for subscriptions; http:// in its place for questions

	network *Network
	server  *httptest.Server

	mu     sync.Mutex
	frames [][]byte      // the event of sequence number n is frames[n-1]; nil once forgotten
	first  int64         // sequence number of the first event that is still there
	grown  chan struct{} // closed, and replaced, with every event
	broken error         // why it no longer follows the PDSes
}

// Relay starts a relay that follows both PDSes from their first event on and ends
// with the test.
func (n *Network) Relay(t testing.TB) *Relay {
	t.Helper()
	r := &Relay{network: n, first: 1, grown: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /xrpc/com.atproto.sync.subscribeRepos", r.subscribe)
	mux.HandleFunc("GET /xrpc/com.atproto.identity.resolveHandle", r.resolveHandle)
	mux.HandleFunc("GET /xrpc/com.atproto.sync.listRepos", r.listRepos)
	mux.HandleFunc("GET /xrpc/com.atproto.sync.getRepo", r.getRepo)
	r.server = httptest.NewServer(mux)
	r.URL = "ws" + strings.TrimPrefix(r.server.URL, "http")
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	for _, pds := range n.PDSs {
		conn, response, err := websocket.DefaultDialer.Dial(pds.WebsocketURL()+"/xrpc/com.atproto.sync.subscribeRepos?cursor=0", nil)
		if err != nil {
			t.Fatalf("subscribe to %s: %v", pds.URL, err)
		}
		_ = response.Body.Close()
		context.AfterFunc(ctx, func() { _ = conn.Close() })
		following.Go(func() { r.follow(ctx, pds, conn) })
	}
	t.Cleanup(func() {
		cancel()
		following.Wait()
		r.server.CloseClientConnections()
		r.server.Close()
		if r.broken != nil {
			t.Errorf("the relay failed: %v", r.broken)
		}
	})
	return r
}

// follow takes over one PDS's events until the context ends.
func (r *Relay) follow(ctx context.Context, pds *PDS, conn *websocket.Conn) {
	for {
		_, frame, err := conn.ReadMessage()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = r.add(ctx, pds, frame)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			log.Printf("relay: following %s: %v", conn.RemoteAddr(), err)
			r.mu.Lock()
			r.broken = err
			r.mu.Unlock()
			return
		}
	}
}

// add gives an event of a PDS's its place in the common stream.
func (r *Relay) add(ctx context.Context, from *PDS, frame []byte) error {
	var event stream.XRPCStreamEvent
	if err := event.Deserialize(bytes.NewReader(frame)); err != nil {
		return fmt.Errorf("decode event: %w", err)
	}
	did, seq := about(&event)
	if seq == nil {
		return fmt.Errorf("an event of a kind that is not relayed: %q", frame[:min(len(frame), 64)])
	}
	host, err := r.network.host(ctx, did)
	if err != nil || host != from.URL {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	*seq = int64(len(r.frames) + 1)
	var out bytes.Buffer
	if err := event.Serialize(&out); err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	r.frames = append(r.frames, out.Bytes())
	close(r.grown)
	r.grown = make(chan struct{})
	return nil
}

// about tells whose event it is, and where its sequence number is.
func about(event *stream.XRPCStreamEvent) (did string, seq *int64) {
	switch {
	case event.RepoCommit != nil:
		return event.RepoCommit.Repo, &event.RepoCommit.Seq
	case event.RepoSync != nil:
		return event.RepoSync.Did, &event.RepoSync.Seq
	case event.RepoIdentity != nil:
		return event.RepoIdentity.Did, &event.RepoIdentity.Seq
	case event.RepoAccount != nil:
		return event.RepoAccount.Did, &event.RepoAccount.Seq
	}
	return "", nil
}

// LastSeq is the sequence number of the latest event, 0 before the first.
func (r *Relay) LastSeq() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int64(len(r.frames))
}

// Forget drops all events so far, as time does: a cursor before them is outdated.
func (r *Relay) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.first = int64(len(r.frames)) + 1
	clear(r.frames)
}

// after returns the events that follow a cursor and are still there, the sequence
// number before the first of them, and what is closed when there are more.
func (r *Relay) after(cursor int64) (frames [][]byte, from int64, grown <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	from = max(min(cursor, int64(len(r.frames))), r.first-1)
	return r.frames[from:], from, r.grown
}

func (r *Relay) subscribe(w http.ResponseWriter, req *http.Request) {
	cursor := r.LastSeq()
	if given := req.URL.Query().Get("cursor"); given != "" {
		var err error
		if cursor, err = strconv.ParseInt(given, 10, 64); err != nil {
			http.Error(w, "cursor must be an integer", http.StatusBadRequest)
			return
		}
	}
	upgrader := websocket.Upgrader{}
	conn, err := upgrader.Upgrade(w, req, nil)
	if err != nil {
		return // it has answered
	}
	defer conn.Close()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			if _, _, err := conn.NextReader(); err != nil {
				return
			}
		}
	}()
	for {
		frames, from, grown := r.after(cursor)
		if cursor < from {
			if conn.WriteMessage(websocket.BinaryMessage, outdated) != nil {
				return
			}
			cursor = from
		}
		for _, frame := range frames {
			if conn.WriteMessage(websocket.BinaryMessage, frame) != nil {
				return
			}
			cursor++
		}
		select {
		case <-grown:
		case <-gone:
			return
		}
	}
}

func (r *Relay) resolveHandle(w http.ResponseWriter, req *http.Request) {
	handle := syntax.Handle(req.URL.Query().Get("handle"))
	w.Header().Set("Content-Type", "application/json")
	for _, pds := range r.network.PDSs {
		if !strings.HasSuffix(string(handle), pds.Domain) {
			continue
		}
		if did, err := pds.ResolveHandle(req.Context(), handle); err == nil {
			_ = json.NewEncoder(w).Encode(map[string]any{"did": did})
			return
		}
	}
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": "HandleNotFound", "message": "unable to resolve handle"})
}

// outdated is the #info frame that says that earlier events are gone.
var outdated = infoFrame("OutdatedCursor")

func infoFrame(name string) []byte {
	var frame bytes.Buffer
	for _, part := range []map[string]any{{"op": int64(1), "t": "#info"}, {"name": name}} {
		encoded, err := atdata.MarshalCBOR(part)
		if err != nil {
			panic(err) // of a constant
		}
		frame.Write(encoded)
	}
	return frame.Bytes()
}

// listRepos answers with the repositories of both PDSes, on one page. The relay
// does not know collections, so it offers no listReposByCollection.
func (r *Relay) listRepos(w http.ResponseWriter, req *http.Request) {
	all := []any{}
	for _, pds := range r.network.PDSs {
		repos, err := pds.listRepos(req.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		all = append(all, repos...)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"repos": all})
}

// getRepo sends whoever asks to the account's PDS, as relays do that keep no repositories.
func (r *Relay) getRepo(w http.ResponseWriter, req *http.Request) {
	for _, pds := range r.network.PDSs {
		if pds.serves(req.Context(), syntax.DID(req.URL.Query().Get("did"))) {
			http.Redirect(w, req, pds.URL+req.URL.RequestURI(), http.StatusFound)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNotFound)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": "RepoNotFound", "message": "no such repository"})
}

package indexer_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/cmd/relay/stream"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer"
	"github.com/layers-pub/layers-appview/indexer/firehose"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/store"
)

// relay passes the network's stream on under sequence numbers of its own, as each
// relay does. It can be away.
type relay struct {
	t      *testing.T
	source string // subscribeRepos of the network
	offset int64
	server *httptest.Server

	mu    sync.Mutex
	away  bool
	conns []*websocket.Conn
	sent  int
}

func newRelay(t *testing.T, network *simulate.Server, offset int64) *relay {
	t.Helper()
	r := &relay{t: t, source: network.RelayURL() + "/xrpc/com.atproto.sync.subscribeRepos", offset: offset}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	t.Cleanup(func() { r.leave(true) })
	return r
}

func (r *relay) url() string { return "ws" + strings.TrimPrefix(r.server.URL, "http") }

// leave cuts all connections, and refuses new ones until it is called with false.
func (r *relay) leave(away bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = away
	for _, conn := range r.conns {
		_ = conn.Close()
	}
	r.conns = nil
}

// begin numbers events otherwise from now on.
func (r *relay) begin(offset int64) {
	r.mu.Lock()
	r.offset = offset
	r.mu.Unlock()
	r.leave(false)
}

func (r *relay) frames() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent
}

func (r *relay) ServeHTTP(w http.ResponseWriter, in *http.Request) {
	r.mu.Lock()
	offset := r.offset
	r.mu.Unlock()
	query := ""
	if cursor, err := strconv.ParseInt(in.URL.Query().Get("cursor"), 10, 64); err == nil {
		query = "?cursor=" + strconv.FormatInt(max(cursor-offset, 0), 10)
	}
	from, _, err := websocket.DefaultDialer.Dial(r.source+query, nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer from.Close()
	r.mu.Lock()
	if r.away {
		r.mu.Unlock()
		http.Error(w, "away", http.StatusBadGateway)
		return
	}
	to, err := (&websocket.Upgrader{}).Upgrade(w, in, nil)
	if err == nil {
		r.conns = append(r.conns, from, to)
	}
	r.mu.Unlock()
	if err != nil {
		return
	}
	defer to.Close()
	for {
		_, data, err := from.ReadMessage()
		if err != nil || to.WriteMessage(websocket.BinaryMessage, r.renumber(data, offset)) != nil {
			return
		}
		r.mu.Lock()
		r.sent++
		r.mu.Unlock()
	}
}

func (r *relay) renumber(data []byte, offset int64) []byte {
	var event stream.XRPCStreamEvent
	if err := event.Deserialize(bytes.NewReader(data)); err != nil {
		r.t.Error(err)
	}
	switch {
	case event.RepoCommit != nil:
		event.RepoCommit.Seq += offset
	case event.RepoSync != nil:
		event.RepoSync.Seq += offset
	case event.RepoIdentity != nil:
		event.RepoIdentity.Seq += offset
	case event.RepoAccount != nil:
		event.RepoAccount.Seq += offset
	}
	var out bytes.Buffer
	if err := event.Serialize(&out); err != nil {
		r.t.Error(err)
	}
	return out.Bytes()
}

// TestRelaysFailOver follows a relay until it is gone, then another one that numbers
// the same events otherwise, and then the first again. What both delivered changes
// nothing, and nothing is missed.
func TestRelaysFailOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	first, second := newRelay(t, r.server, 1000), newRelay(t, r.server, 500_000)
	r.adjust = func(cfg *indexer.Config) {
		cfg.Firehose = firehose.New(firehose.Config{
			Hosts: []string{first.url(), second.url()}, Logger: cfg.Logger, MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond,
			Return: 200 * time.Millisecond, Probe: 100 * time.Millisecond,
		}, nil)
	}
	amara, bola := r.account("amara"), r.account("bola")
	write := func(from, to int) {
		for i := from; i < to; i++ {
			r.commit(amara, simulate.Create(corpus, rkey(i), named("a")))
			r.commit(bola, simulate.Create(corpus, rkey(i), named("b")))
		}
	}
	write(0, 10)
	r.start()
	r.reaches(first, 1000)
	versions := r.versions()

	first.leave(true)
	write(10, 20)
	r.reaches(second, 500_000)
	r.requireTruth()
	// A frame is counted once it is sent, when it may have been applied already.
	require.Eventually(t, func() bool { return second.frames() >= int(r.world.LastSeq()) }, patient, tick,
		"the second relay was to deliver again what the first one had")
	for key, version := range versions {
		require.Equal(t, version, r.versions()[key], "%s was written again", key)
	}

	write(20, 30)
	first.leave(false)
	require.Eventually(t, func() bool {
		write(int(r.world.LastSeq())+100, int(r.world.LastSeq())+101)
		seq, _, err := r.writer.Cursor(t.Context(), first.url())
		return err == nil && seq-1000 > 60
	}, patient, 50*time.Millisecond, "the first relay was not gone back to")
	r.reaches(first, 1000)
	r.requireTruth()
	require.Empty(t, r.letters())
}

// TestRelayThatLostItsSequence begins to number its events anew, so that our cursor
// lies in its future.
func TestRelayThatLostItsSequence(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	only := newRelay(t, r.server, 1_000_000)
	r.adjust = func(cfg *indexer.Config) {
		cfg.Firehose = firehose.New(firehose.Config{Hosts: []string{only.url()}, Logger: cfg.Logger, MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond}, nil)
	}
	amara := r.account("amara")
	r.commit(amara, simulate.Create(corpus, "a", named("a")))
	r.start()
	r.reaches(only, 1_000_000)
	_, err := r.db.Pool.Exec(t.Context(), "DELETE FROM resyncs")
	require.NoError(t, err)

	only.begin(0)
	r.commit(amara, simulate.Create(corpus, "b", named("b")))
	require.Eventually(t, func() bool {
		seq, _, err := r.writer.Cursor(t.Context(), only.url())
		return err == nil && seq == r.world.LastSeq()
	}, patient, tick, "the new sequence is not followed")
	r.requireTruth()
	due, err := store.NewResyncs(r.db.Pool).Due(t.Context(), 10, nil)
	require.NoError(t, err)
	require.Len(t, due, 1, "events may have been missed")

	r.end()
	r.commit(amara, simulate.Create(corpus, "c", named("c")))
	r.start()
	r.reaches(only, 0)
	r.requireTruth()
}

// reaches waits until everything so far has been applied from a relay.
func (r *rig) reaches(from *relay, offset int64) {
	r.t.Helper()
	last := r.world.LastSeq() + offset
	require.Eventually(r.t, func() bool {
		seq, _, err := r.writer.Cursor(r.t.Context(), from.url())
		return err == nil && seq >= last
	}, patient, tick, "the stream was not applied up to %d", last)
}

// versions are those of all records, which grow with every write.
func (r *rig) versions() map[record.Key]int64 {
	r.t.Helper()
	rows, err := r.db.Pool.Query(r.t.Context(), "SELECT did, collection, rkey, version FROM records")
	require.NoError(r.t, err)
	defer rows.Close()
	out := map[record.Key]int64{}
	for rows.Next() {
		var key record.Key
		var version int64
		require.NoError(r.t, rows.Scan(&key.DID, &key.Collection, &key.Rkey, &version))
		out[key] = version
	}
	require.NoError(r.t, rows.Err())
	return out
}

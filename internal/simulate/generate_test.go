package simulate

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/lexicon"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/lexicons"
)

func generate(t *testing.T, w *World, script Script, steps int) *Generator {
	t.Helper()
	g, err := NewGenerator(w, script)
	require.NoError(t, err)
	t.Cleanup(g.Stop)
	for range steps {
		if _, err := g.Step(); !errors.Is(err, ErrDone) {
			require.NoError(t, err)
		}
	}
	return g
}

var busy = Script{Authors: 3, Documents: 6, PerCommit: 4, Edits: 30, Foreign: 20}

func TestGeneratedCommitsVerifyAndTheTruthIsWhatTheyLeave(t *testing.T) {
	quiet(t)
	w := newTestWorld(t, Config{Seed: 3})
	generate(t, w, busy, 600)
	schemas := lexicon.NewBaseCatalog()
	require.NoError(t, schemas.LoadEmbedFS(lexicons.FS))

	held := map[record.Key]string{}
	actions := map[string]int{}
	collections := map[syntax.NSID]bool{}
	for _, f := range frames(t, w, 0) {
		e := event(t, f).RepoCommit
		if e == nil {
			continue
		}
		requireVerified(t, w, e)
		for _, op := range e.Ops {
			key := keyOf(syntax.DID(e.Repo), op.Path)
			actions[op.Action]++
			collections[key.Collection] = true
			if delete(held, key); op.Cid != nil {
				held[key] = op.Cid.String()
			}
		}
	}
	truth := map[record.Key]string{}
	for e := range w.Records(View{}) {
		truth[e.Key] = string(e.CID)
		if e.Key.Collection == foreignCollection {
			continue
		}
		value, err := atdata.UnmarshalCBOR(e.CBOR)
		require.NoError(t, err)
		require.NoError(t, lexicon.ValidateRecord(schemas, value, string(e.Key.Collection), 0))
	}
	require.Equal(t, held, truth)
	require.Len(t, collections, 27)
	require.Greater(t, actions["update"], 100)
	require.Greater(t, actions["delete"], 20)
}

func TestSameSeedAndScriptGenerateTheSameStream(t *testing.T) {
	play := func() []Frame {
		w := newTestWorld(t, Config{Seed: 5})
		generate(t, w, busy, 200)
		return frames(t, w, 0)
	}
	require.Equal(t, play(), play())
}

func TestAScriptEnds(t *testing.T) {
	w := newTestWorld(t, Config{})
	g := generate(t, w, Script{Records: 30, PerCommit: 7, Authors: 2}, 0)
	require.NoError(t, g.Run(context.Background(), 0))
	require.Len(t, rkeys(w, View{}), 30)
	_, err := g.Step()
	require.ErrorIs(t, err, ErrDone)
}

func TestALiveScriptGoesOnWithEdits(t *testing.T) {
	w := newTestWorld(t, Config{})
	g := generate(t, w, Script{Records: 30, Authors: 1, Live: true}, 30)
	for range 10 {
		c, err := g.Step()
		require.NoError(t, err)
		require.NotEqual(t, record.Create, c.Ops[0].Action)
	}
}

func TestRecordings(t *testing.T) {
	for name, inDir := range map[string]bool{"from memory": false, "from its directory": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cfg := Config{Seed: 8}
			if inDir {
				cfg.Dir = dir
			}
			w := newTestWorld(t, cfg)
			generate(t, w, busy, 150)
			gone := createAccount(t, w, "gone")
			require.NoError(t, w.SetStatus(gone, Deleted))
			require.NoError(t, w.Save(dir))

			r, err := Open(dir)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, r.Close()) })
			require.Equal(t, w.LastSeq(), r.LastSeq())
			again, err := r.Frames(0, 1<<30)
			require.NoError(t, err)
			require.Equal(t, frames(t, w, 0), again)
			truth := map[string]string{}
			for key, c := range r.Records() {
				truth[key.String()] = string(c)
			}
			want := map[string]string{}
			for e := range w.Records(View{}) {
				want[e.Key.String()] = string(e.CID)
			}
			require.Equal(t, want, truth)

			s := NewRecordingServer(r, ServerConfig{})
			require.NoError(t, s.Start("127.0.0.1:0"))
			t.Cleanup(func() { require.NoError(t, s.Stop()) })
			live := startServer(t, w, ServerConfig{})
			require.Equal(t, subscribe(t, live, "0").seqs(100), subscribe(t, s, "0").seqs(100))
			for _, did := range w.Accounts() {
				_, a := get(t, live, "/"+string(did))
				_, b := get(t, s, "/"+string(did))
				require.Equal(t, strings.ReplaceAll(string(a), live.URL(), s.URL()), string(b))
			}
			require.Equal(t, "MethodNotImplemented", query(t, s, "com.atproto.sync.getRepo", "did", string(gone))["error"])
		})
	}
}

// BenchmarkCommit measures building, signing and logging commits of one record
// and of a hundred.
func BenchmarkCommit(b *testing.B) {
	for name, n := range map[string]int{"1": 1, "100": 100} {
		b.Run(name, func(b *testing.B) {
			w, err := NewWorld(Config{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer w.Close()
			g, err := NewGenerator(w, Script{PerCommit: n, Authors: 8})
			if err != nil {
				b.Fatal(err)
			}
			defer g.Stop()
			records := 0
			for b.Loop() {
				c, err := g.Step()
				if err != nil {
					b.Fatal(err)
				}
				records += len(c.Ops)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkServe measures one subscriber reading a recording over a socket.
func BenchmarkServe(b *testing.B) {
	dir := b.TempDir()
	w, err := NewWorld(Config{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	g, err := NewGenerator(w, Script{})
	if err != nil {
		b.Fatal(err)
	}
	defer g.Stop()
	for range 20_000 {
		if _, err := g.Step(); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Save(dir); err != nil {
		b.Fatal(err)
	}
	r, err := Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	s := NewRecordingServer(r, ServerConfig{})
	if err := s.Start("127.0.0.1:0"); err != nil {
		b.Fatal(err)
	}
	defer s.Stop()
	size, n := 0, 0
	for b.Loop() {
		conn, _, err := websocket.DefaultDialer.Dial(s.RelayURL()+"/xrpc/com.atproto.sync.subscribeRepos?cursor=0", nil)
		if err != nil {
			b.Fatal(err)
		}
		for range r.LastSeq() {
			_, message, err := conn.ReadMessage()
			if err != nil {
				b.Fatal(err)
			}
			size, n = size+len(message), n+1
		}
		_ = conn.Close()
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "frames/s")
	b.ReportMetric(float64(size)/float64(n), "B/frame")
}

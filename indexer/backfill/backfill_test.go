package backfill_test

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/backfill"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/store"
)

func TestFindsQuietRepositories(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	corpora, ontologies := r.accounts("amara", 11, corpus), r.accounts("bola", 4, ontology)
	r.accounts("chidi", 5, note)
	h := newHost(t, r.network, nil)
	r.start(backfill.Config{Hosts: []string{h.URL}, Collections: []syntax.NSID{corpus, ontology}, PageSize: 3})
	r.finished(2)
	require.ElementsMatch(t, slices.Concat(corpora, ontologies), r.wanted(false))
	require.Empty(t, r.wanted(true))
	require.Equal(t, 4+2, h.count(byCollection), "pages of three")
	require.Equal(t, 11, r.search(corpus).Found)
	require.Equal(t, byCollection, r.search(corpus).Method)
	require.Equal(t, h.URL, r.search(corpus).Host)
	require.Zero(t, h.count(all))
}

// TestKillAndResume stops a search while its third page is under way.
func TestKillAndResume(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	corpora := r.accounts("amara", 11, corpus)
	hung := make(chan struct{})
	h := newHost(t, r.network, func(_ http.ResponseWriter, in *http.Request, nth int) bool {
		if nth != 2 {
			return false
		}
		close(hung)
		<-in.Context().Done()
		return true
	})
	cfg := backfill.Config{Hosts: []string{h.URL}, Collections: []syntax.NSID{corpus}, PageSize: 3}
	stop := r.start(cfg)
	<-hung
	stop()
	before := r.search(corpus)
	require.True(t, before.FinishedAt.IsZero())
	require.NotEmpty(t, before.Cursor)
	require.Len(t, r.wanted(false), 6)

	r.start(cfg)
	r.finished(1)
	require.Equal(t, corpora, r.wanted(false))
	require.Equal(t, 11, r.search(corpus).Found)
	after := h.requests()[3:]
	require.Equal(t, before.Cursor, after[0].cursor, "it goes on where it was")
	require.Len(t, after, 2)
}

func TestBusyHostIsNoFailure(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	corpora := r.accounts("amara", 5, corpus)
	h := newHost(t, r.network, func(w http.ResponseWriter, _ *http.Request, nth int) bool {
		if nth == 0 || nth > 6 {
			return false
		}
		w.Header().Set("Retry-After", "0")
		w.WriteHeader([]int{http.StatusTooManyRequests, http.StatusServiceUnavailable}[nth%2])
		return true
	})
	other := newHost(t, r.network, nil)
	r.start(backfill.Config{Hosts: []string{h.URL, other.URL}, Collections: []syntax.NSID{corpus}, PageSize: 3, Tries: 2})
	r.finished(1)
	require.Equal(t, corpora, r.wanted(false))
	require.Equal(t, 8, h.count(byCollection), "the host asked for patience six times")
	require.Empty(t, other.requests(), "a host that asks for patience gets it")
}

func TestFailingHostIsRepeatedAndThenLeft(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	corpora := r.accounts("amara", 5, corpus)
	h := newHost(t, r.network, func(w http.ResponseWriter, _ *http.Request, nth int) bool {
		switch nth {
		case 0:
			return false
		case 1:
			_, _ = w.Write([]byte(`{"repos": 5}`))
		case 2:
			panic(http.ErrAbortHandler)
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
		return true
	})
	other := newHost(t, r.network, nil)
	r.start(backfill.Config{Hosts: []string{h.URL, other.URL}, Collections: []syntax.NSID{corpus}, PageSize: 3, Tries: 4})
	r.finished(1)
	require.Equal(t, corpora, r.wanted(false))
	require.GreaterOrEqual(t, h.count(byCollection), 5, "one page, and four tries of the next; the client may repeat one by itself")
	require.Empty(t, other.requests()[0].cursor, "a cursor is of no use at another host")
	require.Equal(t, 5, r.search(corpus).Found)
}

// TestCollectionsThatNoHostLists falls back to one list of all repositories for them
// together.
func TestCollectionsThatNoHostLists(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	everybody := slices.Concat(r.accounts("amara", 4, corpus), r.accounts("bola", 3, note))
	away, gone := r.accounts("chidi", 1, corpus)[0], r.accounts("dayo", 1, corpus)[0]
	require.NoError(t, r.world.SetStatus(away, simulate.Deactivated))
	require.NoError(t, r.world.SetStatus(gone, simulate.Deleted))
	h := newHost(t, r.network, func(w http.ResponseWriter, in *http.Request, _ int) bool {
		switch in.URL.Query().Get("collection") {
		case string(corpus), string(note):
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"error":"InvalidRequest","message":"No service configured"}`))
		case string(ontology):
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":"AuthMissing"}`))
		default:
			return false
		}
		return true
	})
	r.start(backfill.Config{Hosts: []string{h.URL}, Collections: []syntax.NSID{corpus, ontology, note}, PageSize: 3})
	r.finished(4)
	require.Equal(t, slices.Sorted(slices.Values(append(everybody, away))), r.wanted(true))
	require.Empty(t, r.wanted(false))
	require.Equal(t, 3, h.count(byCollection))
	require.Equal(t, 3, h.count(all), "once for all collections")
	require.Equal(t, all, r.search(ontology).Method)
}

// TestListOfEverythingIsResumed stops it midway; a collection that comes to depend on
// it later has it done anew.
func TestListOfEverythingIsResumed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	everybody := r.accounts("amara", 8, corpus)
	hung := make(chan struct{})
	var once sync.Once
	h := newHost(t, r.network, func(w http.ResponseWriter, in *http.Request, nth int) bool {
		if in.URL.Query().Has("collection") {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"error":"XRPCNotSupported"}`))
			return true
		}
		if in.URL.Query().Has("cursor") {
			first := false
			once.Do(func() { first = true })
			if first {
				close(hung)
				<-in.Context().Done()
				return true
			}
		}
		return false
	})
	cfg := backfill.Config{Hosts: []string{h.URL}, Collections: []syntax.NSID{corpus}, PageSize: 3}
	stop := r.start(cfg)
	<-hung
	stop()
	require.Len(t, r.wanted(true), 3)
	stop = r.start(cfg)
	r.finished(2)
	stop()
	require.Equal(t, everybody, r.wanted(true))
	require.Equal(t, 1+1+2, h.count(all), "one page, one that hung, and the two that were left")

	r.fetched()
	cfg.Collections = append(cfg.Collections, note)
	r.start(cfg)
	r.finished(3)
	require.Equal(t, everybody, r.wanted(true), "each may have records of the new collection")
	require.Equal(t, 4+3, h.count(all))
}

// TestNothingIsOffered is a host, such as one that serves a recording, that has a stream and no lists.
func TestNothingIsOffered(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := newHost(t, r.network, func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		w.WriteHeader(http.StatusNotImplemented)
		return true
	})
	r.start(backfill.Config{Hosts: []string{h.URL}, Collections: []syntax.NSID{corpus, ontology}})
	look := func() backfill.Progress {
		p, err := backfill.Measure(t.Context(), r.resyncs, time.Minute)
		require.NoError(t, err)
		return p
	}
	require.Eventually(t, func() bool { return look().Unoffered() }, patient, tick)
	require.NoError(t, r.resyncs.RestartDiscoveries(t.Context()))
	require.False(t, look().Unoffered())
	require.Eventually(t, func() bool { return look().Unoffered() }, patient, tick, "the new search is not carried out")
	require.Len(t, h.requests(), 2, "it is asked once for each method")
	require.Len(t, look().Unfinished(), 3, "it may be offered one day")
	require.False(t, look().Settled())
}

func TestWholeRepositoriesAreLeftAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	whole, missing := r.accounts("amara", 3, corpus), r.accounts("bola", 2, corpus)
	_, err := r.resyncs.Add(t.Context(), []store.Wanted{{DID: whole[0]}, {DID: whole[1]}, {DID: whole[2]}})
	require.NoError(t, err)
	r.fetched()
	h := newHost(t, r.network, nil)
	r.start(backfill.Config{Hosts: []string{h.URL}, Collections: []syntax.NSID{corpus}})
	r.finished(1)
	require.Equal(t, missing, r.wanted(false), "a first search fetches what is not there")
	r.fetched()

	require.NoError(t, r.resyncs.RestartDiscoveries(t.Context()))
	r.finished(1)
	require.Equal(t, slices.Sorted(slices.Values(slices.Concat(whole, missing))), r.wanted(false), "one that was asked for fetches all")
	r.fetched()

	require.NoError(t, r.writer.Apply(t.Context(), store.Batch{Host: h.URL, Cursor: 1, Overrun: true}))
	r.finished(1)
	late := r.accounts("chidi", 1, corpus)
	require.Len(t, r.wanted(false), 5, "after an overrun everything is fetched")
	require.NotContains(t, r.wanted(false), late[0])
}

// TestRepositoriesThatBackOffAreNotHurried lists one whose fetch has been postponed.
func TestRepositoriesThatBackOffAreNotHurried(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	did := r.accounts("amara", 1, corpus)[0]
	_, err := r.resyncs.Add(t.Context(), []store.Wanted{{DID: did}})
	require.NoError(t, err)
	_, err = r.db.Pool.Exec(t.Context(), "UPDATE resyncs SET due_at = now() + interval '1 hour', attempts = 3")
	require.NoError(t, err)
	h := newHost(t, r.network, nil)
	r.start(backfill.Config{Hosts: []string{h.URL}, Collections: []syntax.NSID{corpus}})
	r.finished(1)
	due, err := r.resyncs.Due(t.Context(), 10, nil)
	require.NoError(t, err)
	require.Empty(t, due)
}

// TestNewCollection fetches repositories again that are whole, as far as was known
// when they were fetched.
func TestNewCollection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	corpora := r.accounts("amara", 5, corpus)
	r.write(corpora[1], note)
	r.write(corpora[3], note)
	h := newHost(t, r.network, nil)
	cfg := backfill.Config{Hosts: []string{h.URL}, Collections: []syntax.NSID{corpus}}
	stop := r.start(cfg)
	r.finished(1)
	stop()
	r.fetched()

	cfg.Collections = append(cfg.Collections, note)
	stop = r.start(cfg)
	r.finished(2)
	stop()
	require.Equal(t, []syntax.DID{corpora[1], corpora[3]}, r.wanted(false))
	require.Equal(t, 1, count(h.requests(), request{byCollection, string(corpus), ""}), "the old collection is not searched again")

	// A collection that is followed no more is not searched for.
	require.NoError(t, r.resyncs.RestartDiscoveries(t.Context()))
	cfg.Collections = []syntax.NSID{corpus}
	r.start(cfg)
	r.finished(2)
	require.Equal(t, 1, count(h.requests(), request{byCollection, string(note), ""}))
	require.Equal(t, 2, count(h.requests(), request{byCollection, string(corpus), ""}))
}

func count(all []request, one request) (n int) {
	for _, r := range all {
		if r == one {
			n++
		}
	}
	return n
}

// TestRestartMidway starts a search anew while a page of it is under way: an overrun
// may happen at any moment.
func TestRestartMidway(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	corpora := r.accounts("amara", 7, corpus)
	h := newHost(t, r.network, func(_ http.ResponseWriter, _ *http.Request, nth int) bool {
		if nth == 1 {
			if err := r.resyncs.RestartDiscoveries(t.Context()); err != nil {
				t.Error(err)
			}
		}
		return false
	})
	r.start(backfill.Config{Hosts: []string{h.URL}, Collections: []syntax.NSID{corpus}, PageSize: 3})
	r.finished(1)
	require.Equal(t, corpora, r.wanted(false))
	var cursors []bool
	for _, q := range h.requests() {
		cursors = append(cursors, q.cursor != "")
	}
	require.Equal(t, []bool{false, true, false, true, true}, cursors, "the second page's cursor is forgotten")
}

// TestForgottenCursor has the host refuse the cursor with which a search goes on.
func TestForgottenCursor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	corpora := r.accounts("amara", 5, corpus)
	h := newHost(t, r.network, func(w http.ResponseWriter, _ *http.Request, nth int) bool {
		if nth == 1 {
			w.WriteHeader(http.StatusBadRequest)
		}
		return nth == 1
	})
	r.start(backfill.Config{Hosts: []string{h.URL}, Collections: []syntax.NSID{corpus}, PageSize: 3})
	r.finished(1)
	require.Equal(t, corpora, r.wanted(false))
	require.Equal(t, 5, r.search(corpus).Found)
	require.Empty(t, h.requests()[2].cursor)
}

// TestPatternIsSearchedWhenAsked: no host lists a pattern, so that all repositories
// are looked at, but only if somebody wants that.
func TestPatternIsSearchedWhenAsked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	everybody := r.accounts("amara", 3, note)
	h := newHost(t, r.network, nil)
	r.start(backfill.Config{Hosts: []string{h.URL}, Collections: []syntax.NSID{corpus}, Patterns: []string{"org.example.*"}})
	r.finished(1)
	require.Zero(t, h.count(all))
	require.NoError(t, backfill.Request(t.Context(), r.resyncs, "org.example.*"))
	r.finished(3)
	require.Equal(t, everybody, r.wanted(true))
}

func TestHostilePages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	pages := []string{
		`{"cursor":"a","repos":[{"did":"not a did"},{"did":"did:plc:\u0000"},{"did":null},{"did":"did:web:one.example"},{"did":"did:web:one.example"}]}`,
		`{"cursor":"b","repos":[]}`,
		`{"cursor":"b","repos":[{"did":"did:web:two.example"}]}`, // and round in a circle
	}
	h := newHost(t, r.network, func(w http.ResponseWriter, _ *http.Request, nth int) bool {
		_, _ = w.Write([]byte(pages[min(nth, len(pages)-1)]))
		return true
	})
	r.start(backfill.Config{Hosts: []string{h.URL}, Collections: []syntax.NSID{corpus}})
	r.finished(1)
	require.Equal(t, []syntax.DID{"did:web:one.example", "did:web:two.example"}, r.wanted(false))
	require.GreaterOrEqual(t, len(h.requests()), 3)
}

package resync

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/store"
)

// saying answers getRepoStatus as the test wants, and leaves the rest to next.
type saying struct {
	mu    sync.Mutex
	as    http.HandlerFunc // nil to let pass
	asked int
	next  http.Handler
}

func (s *saying) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	s.mu.Lock()
	as := s.as
	if in.URL.Path == "/xrpc/com.atproto.sync.getRepoStatus" {
		s.asked++
	} else {
		as = nil
	}
	s.mu.Unlock()
	if as == nil {
		as = s.next.ServeHTTP
	}
	as(out, in)
}

func (s *saying) says(as http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.as = as
}

func (s *saying) times() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// statusHost is a host whose answers to getRepoStatus are the test's.
func (r *rig) statusHost() (*faulty, *saying) {
	f := r.host()
	s := &saying{next: f.pass}
	f.pass = s
	return f, s
}

func answers(body string) http.HandlerFunc {
	return func(out http.ResponseWriter, in *http.Request) {
		_, _ = io.WriteString(out, `{"did":"`+in.URL.Query().Get("did")+`",`+body+`}`)
	}
}

// tried waits for one more attempt at a repository, which ends without a fetch.
func (r *rig) tried(did syntax.DID) {
	r.t.Helper()
	before := len(r.line.reasonsNow())
	r.want(did)
	r.eventually("it is not tried", func() bool { return len(r.line.reasonsNow()) > before && !r.waits(did) })
}

func TestWhatTheAccountsHostSaysOfItCounts(t *testing.T) {
	t.Parallel()
	for _, status := range []simulate.Status{simulate.Deactivated, simulate.Suspended, simulate.TakenDown} {
		t.Run(string(status), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			did := mixed(t, r.world, "goes", 5)
			r.want(did)
			r.start()
			r.synchronized(did)
			had := r.indexed(did)
			require.NoError(t, r.world.SetStatus(did, status))
			r.tried(did)
			require.False(t, r.row(did).Active)
			require.Equal(t, string(status), r.row(did).Status)
			require.Equal(t, had, r.indexed(did), "hidden, not removed")
			r.tried(did)
			require.Equal(t, string(status), r.row(did).Status)

			require.NoError(t, r.world.SetStatus(did, simulate.Active))
			_, err := r.world.Commit(did, simulate.Create(corpora, "back", corpusValue("back")))
			require.NoError(t, err)
			r.want(did)
			r.eventually("it is not active again", func() bool { _, waits := r.pending(did); return !waits })
			require.True(t, r.row(did).Active)
			require.Equal(t, "active", r.row(did).Status)
			r.synchronized(did)
		})
	}
}

func TestAnAccountThatItsHostHasDeletedIsPurged(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	did := mixed(t, r.world, "deleted", 5)
	r.want(did)
	r.start()
	r.synchronized(did)
	require.NoError(t, r.world.SetStatus(did, simulate.Deleted))
	r.want(did)
	r.purged(did)
}

func (r *rig) purged(did syntax.DID) {
	r.t.Helper()
	r.eventually("it is not purged", func() bool { _, waits := r.pending(did); return !waits && r.row(did).Status == store.StatusDeleted })
	require.Empty(r.t, r.indexed(did))
}

// TestAHostHasToSayTwiceThatItDoesNotKnowAnAccount: it may have lost what it had.
func TestAHostHasToSayTwiceThatItDoesNotKnowAnAccount(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	did := mixed(t, r.world, "unknown", 5)
	pds, word := r.statusHost()
	r.moved[did] = pds.URL
	r.want(did)
	r.start()
	r.synchronized(did)
	had := r.indexed(did)
	pds.mu.Lock()
	pds.always = xrpcError("RepoNotFound")
	pds.mu.Unlock()
	r.tried(did)
	require.Equal(t, 1, word.times())
	require.True(t, r.row(did).Active, "getRepoStatus says that it is active")

	word.says(xrpcError("RepoNotFound"))
	r.tried(did)
	require.False(t, r.row(did).Active)
	require.Equal(t, statusNotFound, r.row(did).Status)
	require.Equal(t, had, r.indexed(did))

	word.says(status(500))
	r.tried(did)
	require.Equal(t, statusNotFound, r.row(did).Status, "no answer is no word")

	word.says(xrpcError("RepoNotFound"))
	r.want(did)
	r.purged(did)
}

func TestWhatIsNoWordOnAnAccountChangesNothing(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]http.HandlerFunc{
		"of another": func(out http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(out, `{"did":"did:plc:other","active":false}`)
		},
		"no status":    answers(`"status":"deleted"`),
		"no JSON":      func(out http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(out, `<html>`) },
		"server error": status(500),
		"no such":      status(501),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			did := mixed(t, r.world, "stays", 5)
			pds, word := r.statusHost()
			r.moved[did] = pds.URL
			r.want(did)
			r.start()
			r.synchronized(did)
			pds.mu.Lock()
			pds.always = xrpcError("RepoNotFound")
			pds.mu.Unlock()
			word.says(says)
			r.tried(did)
			require.Positive(t, word.times())
			require.True(t, r.row(did).Active)
		})
	}
}

// TestARelayIsNotBelievedInThatAnAccountIsGoneButInThatItHasTakenItDown.
func TestARelayIsNotBelievedInThatAnAccountIsGoneButInThatItHasTakenItDown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	did := mixed(t, r.world, "relayed", 5)
	relay, word := r.statusHost()
	relay.always = xrpcError("RepoDeactivated")
	word.says(answers(`"active":false,"status":"deleted"`))
	r.cfg.Relays = []string{relay.URL}
	r.want(did)
	r.start()
	r.synchronized(did)
	require.Positive(t, relay.requests())
	require.True(t, r.row(did).Active)

	inactive, taken, seq := false, "takendown", int64(7)
	require.NoError(t, r.writer.Apply(t.Context(), store.Batch{Host: "relay.test", Repos: []store.RepoUpdate{{DID: did, Active: &inactive, Status: &taken, Seq: &seq}}}))
	word.says(answers(`"active":false,"status":"takendown"`))
	r.tried(did)
	require.False(t, r.row(did).Active, "active at its host, and taken down by the relay")
	word.says(answers(`"active":true`))
	r.want(did)
	r.eventually("it is not active again", func() bool { return r.row(did).Active })
}

var errGone = errors.New("gone for good")

// gone has no documents of some accounts any more.
type gone struct {
	identities
	mu   sync.Mutex
	dids map[syntax.DID]bool
}

func (g *gone) LookupDID(ctx context.Context, did syntax.DID) (*identity.Identity, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dids[did] {
		return nil, errGone
	}
	return g.identities.LookupDID(ctx, did)
}

func TestATombstonedAccountIsPurged(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	did, never := mixed(t, r.world, "tombstoned", 5), mixed(t, r.world, "never-followed", 5)
	documents := &gone{identities: r.cfg.Identities, dids: map[syntax.DID]bool{never: true}}
	r.cfg.Identities, r.cfg.Tombstoned = documents, errGone
	r.want(did, never)
	r.start()
	r.synchronized(did)
	r.eventually("it is not dropped", func() bool { _, waits := r.pending(never); return !waits })
	require.Empty(t, r.row(never).DID)
	documents.mu.Lock()
	documents.dids[did] = true
	documents.mu.Unlock()
	r.want(did)
	r.purged(did)
}

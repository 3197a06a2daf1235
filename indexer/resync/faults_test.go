package resync

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/store"
)

func status(code int, header ...string) http.HandlerFunc {
	return func(out http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			out.Header().Set(header[i], header[i+1])
		}
		out.WriteHeader(code)
		_, _ = io.WriteString(out, `{"error":"SomeError","message":"as the test wants"}`)
	}
}

// xrpcError answers as a host that knows of the account.
func xrpcError(name string) http.HandlerFunc {
	return func(out http.ResponseWriter, _ *http.Request) {
		out.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(out, `{"error":"`+name+`"}`)
	}
}

// content answers with a CAR, or what is left of one.
func content(car []byte) http.HandlerFunc {
	return func(out http.ResponseWriter, _ *http.Request) { _, _ = out.Write(car) }
}

// hang answers nothing, or no more than car, until the client goes.
func hang(car []byte) http.HandlerFunc {
	return func(out http.ResponseWriter, in *http.Request) {
		if car != nil {
			_, _ = out.Write(car)
			out.(http.Flusher).Flush()
		}
		<-in.Context().Done()
	}
}

func TestFaultsOfTheAccountsHostAreOutlived(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.cfg.StallTime, r.cfg.AnswerTime = 2*time.Second, 2*time.Second // which bounds the look-up of identities too
	model := mixed(t, r.world, "model", 30)
	cases := map[string]struct {
		faults []http.HandlerFunc
		fails  bool // counts as an attempt that failed
		cause  string
	}{
		"throttles, with a time":    {[]http.HandlerFunc{status(429, "Retry-After", "1")}, false, "throttled"},
		"throttles, with a date":    {[]http.HandlerFunc{throttleUntil}, false, "throttled"},
		"is busy, with a time":      {[]http.HandlerFunc{status(503, "Retry-After", "1")}, false, "throttled"},
		"is busy, without":          {[]http.HandlerFunc{status(503)}, true, "server error"},
		"fails":                     {[]http.HandlerFunc{status(500), status(502)}, true, "server error"},
		"does not know the method":  {[]http.HandlerFunc{status(501)}, true, "server error"},
		"hangs":                     {[]http.HandlerFunc{hang(nil)}, true, "network: no answer in time"},
		"stops in the middle":       {[]http.HandlerFunc{hang([]byte{58})}, true, "network"},
		"answers with a page":       {[]http.HandlerFunc{content([]byte("<html>hello</html>"))}, true, "refused"},
		"answers with nothing":      {[]http.HandlerFunc{content(nil)}, true, "refused: truncated"},
		"answers for somebody else": {[]http.HandlerFunc{func(out http.ResponseWriter, _ *http.Request) { _, _ = out.Write(download(t, r.server.URL(), model)) }}, true, "refused: commit"},
		"redirects in a circle":     {[]http.HandlerFunc{circle, circle, circle, circle, circle}, true, "more than 5 redirects"},
		"redirects to a file":       {[]http.HandlerFunc{status(302, "Location", "file:///etc/passwd")}, true, "redirects to"},
	}
	r.start()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := r.in(t)
			did := mixed(t, r.world, strings.NewReplacer(" ", "-", ",", "").Replace(name), 3)
			host := r.host(c.faults...)
			r.line.mu.Lock()
			r.moved[did] = host.URL
			r.line.mu.Unlock()
			r.want(did)
			var p pending
			r.eventually("nothing was put off", func() bool { p, _ = r.pending(did); return strings.Contains(p.cause, c.cause) || r.row(did).Complete })
			if p.cause != "" { // else it was mended before we could look
				require.Contains(t, p.cause, c.cause)
				require.Equal(t, c.fails, p.attempts > 0, "%d attempts, %s", p.attempts, p.cause)
				require.NotEmpty(t, p.host)
			}
			r.synchronized(did)
			require.Equal(t, len(c.faults), host.happened(), "every fault was met")
			require.Greater(t, host.requests(), len(c.faults), "and the host was asked again")
		})
	}
}

// throttleUntil names a time in a date, which has no parts of a second.
func throttleUntil(out http.ResponseWriter, in *http.Request) {
	status(429, "Retry-After", time.Now().Add(2*time.Second).UTC().Format(http.TimeFormat))(out, in)
}

func circle(out http.ResponseWriter, in *http.Request) {
	http.Redirect(out, in, in.URL.String(), http.StatusFound)
}

func TestATruncatedOrAlteredRepositoryChangesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	did := mixed(t, r.world, "cut", 200)
	car := download(t, r.server.URL(), did)
	forged := bytes.Clone(car)
	at := bytes.Index(forged, []byte("\x63sig\x58\x40"))
	require.Positive(t, at)
	forged[at+10] ^= 1
	host := r.host(content(car[:len(car)/2]), content(forged))
	r.moved[did] = host.URL
	r.want(did)
	r.start()
	r.eventually("the faults are not met", func() bool { return host.happened() == 2 && len(r.line.reasonsNow()) >= 2 })
	reasons := r.line.reasonsNow()
	require.Contains(t, reasons[0], string(Truncated))
	require.Contains(t, reasons[1], string(Altered), "a signature that was changed changes the commit's CID")
	r.synchronized(did)
}

func (l *testLine) reasonsNow() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.reasons...)
}

// TestAnotherKeysRepositoryIsRefused serves a repository that is whole and signed,
// but not by the account's key.
func TestAnotherKeysRepositoryIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	other, err := simulate.NewWorld(simulate.Config{Seed: 11}) // the same DIDs
	require.NoError(t, err)
	defer other.Close()
	did := mixed(t, r.world, "victim", 3)
	require.Equal(t, did, mixed(t, other, "victim", 9))
	require.NoError(t, other.RotateKey(did))
	_, err = other.Commit(did, simulate.Create(corpora, "forged", corpusValue("forged")))
	require.NoError(t, err)
	server := simulate.NewServer(other, simulate.ServerConfig{})
	require.NoError(t, server.Start("127.0.0.1:0"))
	defer func() { _ = server.Stop() }()
	forged := download(t, server.URL(), did)
	relay := r.host()
	relay.always = content(forged)
	r.cfg.Relays = []string{relay.URL}
	r.moved[did] = r.host(content(forged)).URL
	r.want(did)
	r.start()
	r.eventually("it is not refused", func() bool { return len(r.line.reasonsNow()) > 0 })
	require.Contains(t, r.line.reasonsNow()[0], "signature")
	r.synchronized(did)
	require.NotZero(t, relay.requests())
}

func TestTheRelayIsAskedFirstAndTheAccountsHostWhereItHasNothingGood(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	did := mixed(t, r.world, "both", 20)
	old := download(t, r.server.URL(), did)
	_, err := r.world.Commit(did, simulate.Create(corpora, "newest", corpusValue("newest")))
	require.NoError(t, err)
	relay, pds := r.host(content(old)), r.host()
	r.cfg.Relays = []string{relay.URL}
	r.moved[did] = pds.URL
	seen := latestRev(t, r, did)
	state := store.Desynchronized
	require.NoError(t, r.writer.Apply(t.Context(), store.Batch{Repos: []store.RepoUpdate{{DID: did, Sync: &state, Seen: &seen}}}))
	r.start()
	r.synchronized(did)
	require.Equal(t, 1, relay.happened(), "the relay had an old one")
	require.Equal(t, 1, pds.requests())
	require.Empty(t, r.line.reasonsNow())

	_, err = r.world.Commit(did, simulate.Create(corpora, "more", corpusValue("more")))
	require.NoError(t, err)
	r.want(did)
	r.eventually("it is not fetched from the relay", func() bool { return relay.requests() == 2 && len(r.indexed(did)) == 42 })
	require.Equal(t, 1, pds.requests(), "what the relay has is not asked of the host")
}

func latestRev(t testing.TB, r *rig, did syntax.DID) syntax.TID {
	t.Helper()
	sp, err := spoolOf(t, download(t, r.server.URL(), did))
	require.NoError(t, err)
	block, err := sp.get(sp.root)
	require.NoError(t, err)
	signed, err := r.cfg.Verifier.Signed(t.Context(), did, sp.root, bytes.Clone(block))
	require.NoError(t, err)
	return signed.Rev
}

func TestARelayThatPointsToHostsIsFollowedAndThenSpared(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	pds := r.host()
	relay := r.host()
	relay.always = func(out http.ResponseWriter, in *http.Request) {
		http.Redirect(out, in, pds.URL+in.URL.RequestURI(), http.StatusFound)
	}
	r.cfg.Relays, r.cfg.Concurrency = []string{relay.URL}, 1
	var dids []syntax.DID
	for i := range 5 {
		did := mixed(t, r.world, fmt.Sprintf("pointed-%d", i), 2)
		r.moved[did] = pds.URL
		dids = append(dids, did)
	}
	r.want(dids...)
	r.start()
	r.synchronized(dids...)
	require.Equal(t, 1, relay.requests())
	require.Equal(t, 5, pds.requests())
}

func TestAnAccountThatMovedIsFoundAtItsNewHost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	did := mixed(t, r.world, "moves", 3)
	before, after := r.host(), r.host()
	before.always = func(out http.ResponseWriter, in *http.Request) {
		r.line.mu.Lock()
		r.moved[did] = after.URL // as if the directory had been asked afresh
		r.line.mu.Unlock()
		xrpcError("RepoDeactivated")(out, in)
	}
	r.moved[did] = before.URL
	r.want(did)
	r.start()
	r.synchronized(did)
	require.Equal(t, 1, before.requests())
	require.Equal(t, 1, after.requests())
	require.Empty(t, r.line.reasonsNow(), "one fetch sufficed")
}

// TestADeadHostHoldsUpNobodyElse has a host that never answers with many more
// repositories due, and for longer, than a host that works.
func TestADeadHostHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dead, well := r.host(), r.host()
	dead.always = hang(nil)
	r.cfg.Concurrency, r.cfg.PerHost = 4, 2
	for i := range 30 {
		did := mixed(t, r.world, fmt.Sprintf("dead-%d", i), 0)
		r.moved[did] = dead.URL
		r.want(did)
	}
	var fine []syntax.DID
	for i := range 10 {
		did := mixed(t, r.world, fmt.Sprintf("fine-%d", i), 2)
		r.moved[did] = well.URL
		fine = append(fine, did)
	}
	r.want(fine...)
	r.start()
	r.eventually("the dead host is not asked", func() bool { return dead.requests() == 2 })
	r.synchronized(fine...)
	require.Equal(t, 2, dead.requests(), "two wait for it still, and no more than that")
}

func TestAHostThatFailsIsLeftAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	host := r.host()
	host.always = status(500)
	r.cfg.PerHost = 1
	var dids []syntax.DID
	for i := range 12 {
		did := mixed(t, r.world, fmt.Sprintf("fails-%d", i), 0)
		r.moved[did] = host.URL
		dids = append(dids, did)
	}
	r.want(dids...)
	r.start()
	r.eventually("they are not put off", func() bool {
		off := 0
		for _, did := range dids {
			if p, _ := r.pending(did); strings.Contains(p.cause, string(Closed)) && p.due.After(time.Now().Add(time.Second)) {
				off++
			}
		}
		return off == len(dids)
	})
	require.Equal(t, breakAfter, host.requests())
}

func TestNoRepositoryIsFetchedTwiceAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	host := r.host()
	release := make(chan struct{})
	host.always = func(out http.ResponseWriter, in *http.Request) {
		<-release
		host.pass.ServeHTTP(out, in)
	}
	did := mixed(t, r.world, "wanted", 2)
	r.moved[did] = host.URL
	r.want(did)
	r.start()
	r.eventually("it is not asked for", func() bool { return host.requests() == 1 })
	for range 5 {
		r.want(did) // it is due again at once
		require.True(t, r.waits(did))
	}
	after := mixed(t, r.world, "after", 1)
	r.want(after)
	r.synchronized(after) // the queue has been looked at since
	require.Equal(t, 1, host.requests())
	close(release)
	r.synchronized(did)
	require.Empty(t, r.line.twice)
}

func TestABombIsNotUnpackedFurtherThanIsAllowed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	did := mixed(t, r.world, "bomb", 2)
	block := newSection(make([]byte, 1<<20))
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	for i := range 64 {
		part := encode(block.cid, block)
		if i > 0 {
			part = part[int(part[0])+1:]
		}
		_, err := w.Write(part)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.Less(t, packed.Len(), 1<<20)
	host := r.host(func(out http.ResponseWriter, in *http.Request) {
		require.Contains(t, in.Header.Get("Accept-Encoding"), "gzip")
		out.Header().Set("Content-Encoding", "gzip")
		_, _ = out.Write(packed.Bytes())
	})
	r.moved[did] = host.URL
	r.cfg.Limits.Bytes = 8 << 20
	r.want(did)
	r.start()
	r.eventually("it is not refused", func() bool { return len(r.line.reasonsNow()) > 0 })
	require.Contains(t, r.line.reasonsNow()[0], string(TooLarge))
	r.synchronized(did)
}

const brokenFor = 30 * time.Second

func TestGatesMindWhatHostsAskFor(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	g := newGates(1, 10, brokenFor)
	g.now = func() time.Time { return now }
	for name, c := range map[string]struct {
		header []string
		want   time.Duration
	}{
		"seconds":          {[]string{"Retry-After", "90"}, 90 * time.Second},
		"a date":           {[]string{"Retry-After", now.Add(time.Minute * 5).Format(http.TimeFormat)}, 5 * time.Minute},
		"a reset":          {[]string{"RateLimit-Reset", fmt.Sprint(now.Add(7 * time.Minute).Unix())}, 7 * time.Minute},
		"nothing":          {nil, throttledFor},
		"the past":         {[]string{"Retry-After", "-5"}, throttledFor},
		"no number":        {[]string{"Retry-After", "soon"}, throttledFor},
		"far too long":     {[]string{"Retry-After", "999999999"}, maxClosed},
		"an endless reset": {[]string{"RateLimit-Reset", "9223372036854775807"}, maxClosed},
	} {
		recorder := httptest.NewRecorder()
		for i := 0; i+1 < len(c.header); i += 2 {
			recorder.Header().Set(c.header[i], c.header[i+1])
		}
		gate := g.at(name)
		until := gate.throttle(retryAt(recorder.Header(), now))
		require.True(t, now.Add(c.want).Equal(until), "%s: %s", name, until)
		_, err := gate.enter(t.Context())
		failure, ok := asFailure(err)
		require.True(t, ok)
		require.Equal(t, Closed, failure.Class)
		require.Equal(t, until, failure.Until)
	}
	gate := g.at("failing")
	waits := []time.Duration{0, 0, brokenFor, 2 * brokenFor, 4 * brokenFor, 8 * brokenFor, 16 * brokenFor, 32 * brokenFor, 64 * brokenFor, maxClosed, maxClosed}
	for i, wait := range waits {
		gate.failed()
		require.Equal(t, wait > 0, gate.closed.After(now), "failure %d", i)
		if wait > 0 {
			require.Equal(t, now.Add(wait), gate.closed)
		}
		now = now.Add(2 * time.Hour)
	}
	gate.answered()
	gate.failed()
	require.False(t, gate.closed.After(now))
}

func TestGatesOfManyHostsAreForgotten(t *testing.T) {
	t.Parallel()
	g := newGates(1, 10, brokenFor)
	kept := g.at("used")
	g.at("closed").throttle(time.Now().Add(time.Minute))
	for i := range 3 * gatesKept {
		g.at(fmt.Sprint("host ", i)).done()
	}
	require.LessOrEqual(t, len(g.of), gatesKept+1)
	require.Same(t, kept, g.at("used"))
	require.Error(t, g.at("closed").check())
}

package directory

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"
)

// counted is a listener that counts the connections it was made.
type counted struct {
	net.Listener
	accepted atomic.Int64
}

func (c *counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.accepted.Add(1)
	}
	return conn, err
}

// victim is a real server on an address of this machine that must not be reached.
func victim(t *testing.T, address string, handler http.HandlerFunc) (*counted, string) {
	t.Helper()
	inner, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	require.NoError(t, err, "tests need loopback, of IPv6 too")
	listener := &counted{Listener: inner}
	server := httptest.NewUnstartedServer(handler)
	require.NoError(t, server.Listener.Close())
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(inner.Addr().String())
	require.NoError(t, err)
	return listener, port
}

func answerOK(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") }

// nameserver answers every question for an address with the next of a list, the last
// one for ever.
func nameserver(t *testing.T, answers ...string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	var mu sync.Mutex
	go func() {
		query := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(query)
			if err != nil {
				return
			}
			mu.Lock()
			reply, used := reply(query[:n], netip.MustParseAddr(answers[0]))
			if used && len(answers) > 1 {
				answers = answers[1:]
			}
			mu.Unlock()
			_, _ = conn.WriteTo(reply, from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// reply is a DNS answer (RFC 1035, section 4) with the address, or with none where
// the question is for the other kind.
func reply(query []byte, address netip.Addr) ([]byte, bool) {
	end := 12
	for query[end] != 0 {
		end += 1 + int(query[end])
	}
	question := query[12 : end+5]
	kind := binary.BigEndian.Uint16(question[len(question)-4:])
	wanted, data := uint16(1), address.AsSlice()
	if address.Is6() {
		wanted = 28
	}
	out := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
	if kind != wanted {
		return out, false
	}
	out[7] = 1
	out = append(out, 0xc0, 12, byte(wanted>>8), byte(wanted), 0, 1, 0, 0, 0, 0, 0, byte(len(data)))
	return append(out, data...), true
}

// ask is a request that a record or an identity could lead to.
func ask(t *testing.T, client *http.Client, target string) error {
	t.Helper()
	response, err := client.Get(target)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.ReadAll(response.Body)
	return err
}

// TestNoConnectionIsMade dials every way of writing an address of this machine, with
// a real server there, and counts the connections that come. The same requests
// without the guard do connect.
func TestNoConnectionIsMade(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		at, host string
		resolver func(*testing.T) *net.Resolver
	}{
		"loopback":                     {at: "127.0.0.1", host: "127.0.0.1"},
		"loopback by name":             {at: "127.0.0.1", host: "localhost"},
		"loopback of IPv6":             {at: "::1", host: "[::1]"},
		"unspecified":                  {at: "127.0.0.1", host: "0.0.0.0"},
		"unspecified of IPv6":          {at: "::1", host: "[::]"},
		"IPv4 in IPv6":                 {at: "127.0.0.1", host: "[::ffff:127.0.0.1]"},
		"IPv4 in IPv6, in hexadecimal": {at: "127.0.0.1", host: "[::ffff:7f00:1]"},
		"all of 127/8":                 {at: "127.9.8.7", host: "127.9.8.7"},
		"name that resolves to loopback": {at: "127.0.0.1", host: "pds.example.com",
			resolver: func(t *testing.T) *net.Resolver { return nameserver(t, "127.0.0.1") }},
		"name that resolves to loopback of IPv6": {at: "::1", host: "pds.example.com",
			resolver: func(t *testing.T) *net.Resolver { return nameserver(t, "::1") }},
		"name that resolves to IPv4 in IPv6": {at: "127.0.0.1", host: "pds.example.com",
			resolver: func(t *testing.T) *net.Resolver { return nameserver(t, "::ffff:127.0.0.1") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, port := victim(t, c.at, answerOK)
			g, open := guard{}, &net.Dialer{Timeout: dialTime}
			if c.resolver != nil {
				g.resolver, open.Resolver = c.resolver(t), c.resolver(t)
			}
			target := "http://" + c.host + ":" + port + "/"
			require.ErrorIs(t, ask(t, newClient(newTransport(g.dialer().DialContext)), target), ErrForbiddenHost)
			require.Zero(t, listener.accepted.Load(), "a connection was made")
			require.NoError(t, ask(t, newClient(newTransport(open.DialContext)), target))
			require.EqualValues(t, 1, listener.accepted.Load(), "the server could be reached all along")
		})
	}
}

// TestRebindingGainsNothing resolves a name to a public address when it is looked at
// and to loopback when it is used.
func TestRebindingGainsNothing(t *testing.T) {
	t.Parallel()
	listener, port := victim(t, "127.0.0.1", answerOK)
	g := guard{resolver: nameserver(t, "8.8.8.8", "127.0.0.1")}
	seen, err := g.resolver.LookupNetIP(t.Context(), "ip4", "rebind.example.com")
	require.NoError(t, err)
	require.True(t, isPublic(seen[0]), "the name looks harmless")
	err = ask(t, newClient(newTransport(g.dialer().DialContext)), "http://rebind.example.com:"+port)
	require.ErrorIs(t, err, ErrForbiddenHost)
	require.Zero(t, listener.accepted.Load())
}

// redirector answers for one public host, in memory, with a redirect; everything else
// goes to the real transport.
type redirector struct {
	http.RoundTripper
	to   string
	hops *int
}

func (r redirector) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.URL.Hostname() != "public.example.com" {
		return r.RoundTripper.RoundTrip(request)
	}
	*r.hops++
	return &http.Response{StatusCode: http.StatusFound, Header: http.Header{"Location": {r.to}}, Body: http.NoBody, Request: request}, nil
}

func TestRedirectsAreHeldToTheSame(t *testing.T) {
	t.Parallel()
	listener, port := victim(t, "127.0.0.1", answerOK)
	inside, hops := "http://127.0.0.1:"+port, 0
	guarded := newClient(redirector{newTransport(guard{}.dialer().DialContext), inside, &hops})
	require.ErrorIs(t, ask(t, guarded, "http://public.example.com/"), ErrForbiddenHost)
	require.Zero(t, listener.accepted.Load())

	open := newClient(redirector{Transport(true), inside, &hops})
	require.ErrorContains(t, ask(t, open, "https://public.example.com/"), "redirect from https to http")
	require.Zero(t, listener.accepted.Load())
	require.NoError(t, ask(t, open, "http://public.example.com/"))
	require.EqualValues(t, 1, listener.accepted.Load())

	hops = 0
	loop := newClient(redirector{Transport(true), "https://public.example.com/", &hops})
	require.ErrorContains(t, ask(t, loop, "https://public.example.com/"), "more than 5 redirects")
	require.Equal(t, 1+maxRedirects, hops)
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for address, public := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "172.32.0.1": true, "100.128.0.1": true, "2606:4700:4700::1111": true, "2a00:1450::1": true,
		"64:ff9b::8.8.8.8": true, "::ffff:8.8.8.8": true,
		"0.0.0.0": false, "0.1.2.3": false, "10.1.2.3": false, "127.0.0.1": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false,
		"100.64.0.1": false, "100.100.100.200": false, "169.254.169.254": false, "168.63.129.16": false, "192.0.0.192": false, "192.0.2.1": false,
		"192.88.99.1": false, "198.18.0.1": false, "198.51.100.1": false, "203.0.113.1": false, "224.0.0.1": false, "239.255.255.255": false,
		"240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::7f00:1": false, "fe80::1": false, "fe80::1%eth0": false, "fc00::1": false, "fd00:ec2::254": false, "fec0::1": false,
		"ff02::1": false, "2001::1": false, "2001:db8::1": false, "2002:7f00:1::": false, "3fff::1": false, "5f00::1": false, "100::1": false,
		"64:ff9b::127.0.0.1": false, "64:ff9b::10.0.0.1": false, "64:ff9b::169.254.169.254": false, "64:ff9b:1::1": false,
		"::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::ffff:169.254.169.254": false,
	} {
		require.Equal(t, public, isPublic(netip.MustParseAddr(address)), address)
	}
	require.False(t, isPublic(netip.Addr{}))
}

func TestPorts(t *testing.T) {
	t.Parallel()
	g := guard{ports: []string{"80", "443"}}
	for address, allowed := range map[string]bool{
		"8.8.8.8:443": true, "[2606:4700:4700::1111]:80": true, "8.8.8.8:22": false, "8.8.8.8:6379": false, "8.8.8.8:4430": false, "8.8.8.8": false, "host:443": false,
	} {
		err := g.control(t.Context(), "tcp", address, nil)
		require.Equal(t, allowed, err == nil, "%s: %v", address, err)
		require.True(t, allowed || errors.Is(err, ErrForbiddenHost))
	}
}

// TestIdentitiesAreGuarded follows what a network's identity can lead to, through
// the directory as the program makes it.
func TestIdentitiesAreGuarded(t *testing.T) {
	t.Parallel()
	g := guard{ports: []string{"80", "443"}, resolver: nameserver(t, "127.0.0.1")}
	d := newDirectory(Config{PLCURL: "https://plc.example.com"}, newClient(newTransport(g.dialer().DialContext)))
	_, err := d.LookupDID(t.Context(), "did:web:evil.example.com")
	require.ErrorIs(t, err, ErrForbiddenHost)
	d.base.Resolver.Dial = g.resolver.Dial
	_, err = d.ResolveHandle(t.Context(), "evil.example.com")
	require.ErrorIs(t, err, ErrForbiddenHost)

	for _, did := range []syntax.DID{"did:web:localhost", "did:web:127.0.0.1", "did:web:localhost%3A8080", "did:web:metadata.internal", "did:web:pds.local"} {
		_, err := d.LookupDID(t.Context(), did)
		require.Error(t, err, did)
	}
	_, guarded := Client(false).Transport.(bounded).next.(*http.Transport).DialContext(t.Context(), "tcp", "127.0.0.1:443")
	require.ErrorIs(t, guarded, ErrForbiddenHost, "the program's own client has the guard")
	require.Nil(t, Transport(false).Proxy, "a proxy would resolve and dial where nobody looks")
}

// TestThePLCDirectoryIsTheOperatorsChoice reaches one on loopback, without following
// it elsewhere.
func TestThePLCDirectoryIsTheOperatorsChoice(t *testing.T) {
	t.Parallel()
	const did, gone, unknown = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "did:plc:cccccccccccccccccccccccc", "did:plc:dddddddddddddddddddddddd"
	elsewhere, port := victim(t, "127.0.0.1", answerOK)
	plc, plcPort := victim(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/" + gone:
			http.Error(w, "{}", http.StatusGone)
			return
		case "/" + unknown:
			http.NotFound(w, r)
			return
		}
		if r.URL.Path != "/"+did {
			http.Redirect(w, r, "http://127.0.0.1:"+port, http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, `{"id":"`+did+`","alsoKnownAs":["at://amara.example.com"]}`)
	})
	d := New(Config{PLCURL: "http://127.0.0.1:" + plcPort})
	account, err := d.LookupDID(t.Context(), did)
	require.NoError(t, err)
	require.Equal(t, []string{"at://amara.example.com"}, account.AlsoKnownAs)
	_, err = d.LookupDID(t.Context(), "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb")
	require.ErrorIs(t, err, identity.ErrDIDResolutionFailed)
	_, err = d.LookupDID(t.Context(), gone)
	require.ErrorIs(t, err, ErrTombstoned)
	_, err = d.LookupDID(t.Context(), gone)
	require.ErrorIs(t, err, ErrTombstoned, "from the cache")
	_, err = d.LookupDID(t.Context(), unknown)
	require.ErrorIs(t, err, identity.ErrDIDNotFound)
	require.NotErrorIs(t, err, ErrTombstoned, "not known is not deleted")
	require.NotZero(t, plc.accepted.Load())
	require.Zero(t, elsewhere.accepted.Load())
}

// TestAnswersAreBounded reads answers of a megabyte, and of one byte more, as they
// are and compressed to a thousandth.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	_, port := victim(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		body := bytes.Repeat([]byte("a"), maxBody+len(r.URL.Query().Get("more")))
		if r.URL.Path == "/gzip" {
			w.Header().Set("Content-Encoding", "gzip")
			zip := gzip.NewWriter(w)
			_, _ = zip.Write(body)
			_ = zip.Close()
			return
		}
		_, _ = w.Write(body)
	})
	client := Client(true)
	for _, path := range []string{"/plain", "/gzip"} {
		target := "http://127.0.0.1:" + port + path
		require.NoError(t, ask(t, client, target))
		require.ErrorIs(t, ask(t, client, target+"?more=1"), ErrTooLarge)
	}
}

func TestHeadersAreBounded(t *testing.T) {
	t.Parallel()
	_, port := victim(t, "127.0.0.1", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Large", strings.Repeat("a", 2*maxHeader))
	})
	require.ErrorContains(t, ask(t, Client(true), "http://127.0.0.1:"+port), "server response headers exceeded")
}

// TestTimeIsBounded asks a host that sends its answer's beginning and then nothing.
func TestTimeIsBounded(t *testing.T) {
	t.Parallel()
	hung := make(chan struct{})
	_, port := victim(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "{")
		w.(http.Flusher).Flush()
		close(hung)
		<-r.Context().Done()
	})
	client := Client(true)
	require.Equal(t, clientTime, client.Timeout)
	client.Timeout /= 20
	err := ask(t, client, "http://127.0.0.1:"+port)
	<-hung
	var timeout *url.Error
	require.True(t, errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout(), "%v", err)
}

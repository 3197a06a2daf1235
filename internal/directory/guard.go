package directory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// ErrForbiddenHost is wrapped by a request that would have reached an address which
// the network may not lead us to. No connection has been made.
var ErrForbiddenHost = errors.New("host is not on the public Internet")

// ErrTooLarge is wrapped by the reading of an answer that is longer than is allowed,
// counted once decompressed.
var ErrTooLarge = errors.New("answer is too large")

const (
	dialTime     = 10 * time.Second
	headerTime   = 15 * time.Second
	maxHeader    = 64 << 10 // bytes of an answer's header
	maxRedirects = 5
)

// reserved are the networks that are not the public Internet, though by their
// numbers they might be (https://www.iana.org/assignments/iana-ipv4-special-registry,
// and its IPv6 sister). The metadata services of clouds lie in link-local, shared,
// protocol or unique local space, but for Azure's.
var reserved = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
	"168.63.129.16/32",
	"2001::/23",     // protocol assignments, with Teredo, benchmarks and ORCHID
	"2001:db8::/32", // documentation
	"3fff::/20",     // the same
	"2002::/16",     // 6to4, which has an IPv4 address inside
	"5f00::/16",     // segment routing
)

var (
	globalIPv6 = netip.MustParsePrefix("2000::/3")
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
)

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParsePrefix(text)
	}
	return out
}

// isPublic tells whether an address is on the public Internet. One of IPv4 inside
// of an IPv6 address is judged as what it is.
func isPublic(address netip.Addr) bool {
	address = address.Unmap()
	if nat64.Contains(address) {
		bytes := address.As16()
		return isPublic(netip.AddrFrom4([4]byte(bytes[12:])))
	}
	if !address.IsValid() || address.Zone() != "" || address.Is6() && !globalIPv6.Contains(address) {
		return false
	}
	return !slices.ContainsFunc(reserved, func(p netip.Prefix) bool { return p.Contains(address) })
}

// guard lets connections through to the public Internet alone. It judges the address
// that is about to be dialled, so a name that resolves to one thing when it is
// looked at and to another when it is used gains nothing.
type guard struct {
	ports    []string      // that may be dialled; nil for all
	resolver *net.Resolver // nil for the system's
}

func (g guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q: %w: %w", address, ErrForbiddenHost, err)
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !isPublic(ip) {
		return fmt.Errorf("%s: %w", address, ErrForbiddenHost)
	}
	if g.ports != nil && !slices.Contains(g.ports, port) {
		return fmt.Errorf("port of %s: %w", address, ErrForbiddenHost)
	}
	return nil
}

func (g guard) dialer() *net.Dialer {
	return &net.Dialer{Timeout: dialTime, KeepAlive: 30 * time.Second, Resolver: g.resolver, ControlContext: g.control}
}

// Transport makes the transport for every request that the network's data leads to:
// hosts that DID documents, handles and redirects name. It reaches ports 80 and 443
// of public addresses, through no proxy, as a proxy would do the resolving; with
// allowPrivate it reaches everything. Bodies it does not bound.
func Transport(allowPrivate bool) *http.Transport {
	if allowPrivate {
		t := newTransport((&net.Dialer{Timeout: dialTime, KeepAlive: 30 * time.Second}).DialContext)
		t.Proxy = http.ProxyFromEnvironment
		return t
	}
	return newTransport(guard{ports: []string{"80", "443"}}.dialer().DialContext)
}

func newTransport(dial func(context.Context, string, string) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		DialContext: dial, ForceAttemptHTTP2: true, MaxIdleConns: 100, MaxIdleConnsPerHost: 8, IdleConnTimeout: 90 * time.Second,
		TLSHandshakeTimeout: dialTime, ResponseHeaderTimeout: headerTime, MaxResponseHeaderBytes: maxHeader,
	}
}

// Client makes a client for short answers of hosts that the network's data leads to:
// [Transport], a megabyte, 15 seconds.
func Client(allowPrivate bool) *http.Client { return newClient(Transport(allowPrivate)) }

func newClient(transport http.RoundTripper) *http.Client {
	return &http.Client{Transport: bounded{transport}, Timeout: clientTime, CheckRedirect: CheckRedirect}
}

// CheckRedirect follows a few redirects, none from https to http.
func CheckRedirect(next *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if via[len(via)-1].URL.Scheme == "https" && next.URL.Scheme != "https" {
		return fmt.Errorf("redirect from https to %s", next.URL.Scheme)
	}
	return nil
}

// bounded ends the reading of every answer that is too large, with an error: a part
// of an answer is not an answer.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.next.RoundTrip(r)
	if err == nil {
		response.Body = &boundedBody{response.Body, maxBody}
	}
	return response, err
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1] // one more than allowed, to see whether there is one
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("over %d bytes: %w", int64(maxBody), ErrTooLarge)
	}
	return n, err
}

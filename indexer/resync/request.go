package resync

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

const (
	maxHops   = 5
	maxAnswer = 1 << 20 // bytes of an answer that is no repository
)

// client asks hosts for repositories. Hosts that the operator has chosen are reached
// wherever they are; those that the network names, redirects included, by a
// transport that reaches the public Internet alone.
type client struct {
	network, operator http.RoundTripper
	chosen            map[string]bool // hosts
	gates             *gates
	userAgent         string
	answerTime        time.Duration // until an answer begins
	progress          progress
}

// answer is a successful answer. Its body must be closed, which also gives back the
// host's place.
type answer struct {
	io.Reader
	body   io.Closer
	gate   *gate
	host   string
	cancel context.CancelCauseFunc
	cause  func() error // why the answer was cut off; nil if it was not
}

func (a *answer) close() {
	_ = a.body.Close() // nothing was written
}

// failed makes a failure of an error in reading.
func (a *answer) failed(class Class, err error) error {
	if cause := a.cause(); cause != nil {
		err = cause
	}
	a.gate.failed()
	return &Failure{Class: class, Host: a.host, Err: err}
}

// ask sends a query of the account's to a host, and follows where it points to,
// through the gate of each host on the way. It fails with a [Failure], or as ctx does.
func (c *client) ask(ctx context.Context, base, method, parameter string, did syntax.DID) (*answer, error) {
	at, err := url.Parse(strings.TrimSuffix(base, "/") + "/xrpc/" + method + "?" + url.Values{parameter: {string(did)}}.Encode())
	if err != nil || at.Host == "" || at.Scheme != "https" && at.Scheme != "http" {
		return nil, &Failure{Class: Identity, Host: base, Err: errText("not the address of a host")}
	}
	for range maxHops {
		a, next, err := c.hop(ctx, at)
		if next == nil || err != nil {
			return a, err
		}
		if at.Scheme == "https" && next.Scheme != "https" || next.Host == "" || next.Scheme != "https" && next.Scheme != "http" {
			return nil, &Failure{Class: Server, Host: at.Host, Err: fmt.Errorf("redirects to %.200s", next)}
		}
		at = next
	}
	return nil, &Failure{Class: Server, Host: at.Host, Err: fmt.Errorf("more than %d redirects", maxHops)}
}

// hop asks one host; next is where it points to instead of answering.
func (c *client) hop(ctx context.Context, at *url.URL) (a *answer, next *url.URL, err error) {
	gate := c.gates.at(at.Host)
	leave, err := gate.enter(ctx)
	if err != nil {
		gate.done()
		return nil, nil, err
	}
	inner, cancel := context.WithCancelCause(ctx)
	over := func() { cancel(nil); leave(); gate.done() }
	response, err := c.roundTrip(inner, cancel, at) //nolint:bodyclose // placed closes it
	if err != nil {
		if ctx.Err() == nil {
			gate.failed()
		}
		err = &Failure{Class: Network, Host: at.Host, Err: causeOf(inner, err)}
		over()
		return nil, nil, err
	}
	body := placed{response.Body, over}
	if response.StatusCode == http.StatusOK {
		return &answer{
			Reader: newPace(response.Body, cancel, c.progress), body: body, gate: gate, host: at.Host, cancel: cancel,
			cause: func() error { return context.Cause(inner) },
		}, nil, nil
	}
	defer body.Close()
	if location := response.Header.Get("Location"); response.StatusCode/100 == 3 && location != "" {
		gate.answered()
		gate.passOn()
		next, err := at.Parse(location)
		if err != nil {
			return nil, nil, &Failure{Class: Server, Host: at.Host, Err: fmt.Errorf("redirects to %.200q", location)}
		}
		return nil, next, nil
	}
	return nil, nil, c.judge(gate, response)
}

// roundTrip sends the request and waits for the beginning of the answer.
func (c *client) roundTrip(ctx context.Context, cancel context.CancelCauseFunc, at *url.URL) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", c.userAgent)
	silent := time.AfterFunc(c.answerTime, func() { cancel(errSilent) })
	defer silent.Stop()
	return c.transport(at.Host).RoundTrip(request)
}

func (c *client) transport(host string) http.RoundTripper {
	if c.chosen[host] {
		return c.operator
	}
	return c.network
}

// placed gives the host's place back when the answer has been read.
type placed struct {
	io.ReadCloser
	over func()
}

func (p placed) Close() error {
	err := p.ReadCloser.Close()
	p.over()
	return err
}

// judge makes a failure of an answer that is not what was asked for.
func (c *client) judge(gate *gate, response *http.Response) error {
	var said struct{ Error, Message string }
	_ = json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&said) // what it is not, it does not say
	f := &Failure{Class: Server, Host: gate.host, Err: fmt.Errorf("status %d, %.100q: %.300q", response.StatusCode, said.Error, said.Message)}
	wait := response.Header.Get("Retry-After")
	switch code := response.StatusCode; {
	case code == http.StatusTooManyRequests, code == http.StatusServiceUnavailable && wait != "":
		f.Class, f.Until = Throttled, gate.throttle(retryAt(response.Header, c.gates.now()))
		return f
	case code >= 500:
		gate.failed()
		return f
	}
	gate.answered()
	if class, ok := named[said.Error]; ok {
		f.Class = class
	}
	return f
}

// named are the errors of com.atproto.sync.getRepo and com.atproto.repo.describeRepo.
var named = map[string]Class{
	"RepoNotFound": NotFound, "RepoDeactivated": Deactivated, "RepoTakendown": TakenDown, "RepoSuspended": Suspended,
}

// retryAt is when a host wants to be asked again; zero where it does not say.
func retryAt(header http.Header, now time.Time) time.Time {
	after := header.Get("Retry-After")
	if seconds, err := strconv.ParseInt(after, 10, 32); err == nil {
		return now.Add(time.Duration(seconds) * time.Second)
	}
	if at, err := http.ParseTime(after); err == nil {
		return at
	}
	if reset, err := strconv.ParseInt(header.Get("RateLimit-Reset"), 10, 64); err == nil {
		return time.Unix(min(reset, now.Add(maxClosed).Unix()), 0).UTC()
	}
	return time.Time{}
}

// causeOf tells why a context ended where that is why a request did.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// collections asks a host in which collections an account has records.
func (c *client) collections(ctx context.Context, base string, did syntax.DID) ([]syntax.NSID, error) {
	a, err := c.ask(ctx, base, "com.atproto.repo.describeRepo", "repo", did)
	if err != nil {
		return nil, err
	}
	defer a.close()
	var described struct{ Collections []syntax.NSID }
	if err := json.NewDecoder(io.LimitReader(a, maxAnswer)).Decode(&described); err != nil {
		return nil, a.failed(Server, fmt.Errorf("describeRepo: %w", err))
	}
	a.gate.answered()
	return described.Collections, nil
}

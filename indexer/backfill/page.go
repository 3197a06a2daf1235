package backfill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/store"
)

var (
	// errNotOffered says that a host does not have the method.
	errNotOffered = errors.New("the host does not offer the method")
	// errRefused says that a host finds the request wrong: repeating it does not help.
	errRefused = errors.New("the host refuses the request")
)

const (
	maxPage       = 8 << 20 // bytes of an answer
	maxRetryAfter = time.Hour
)

// page is an answer of either method.
type page struct {
	Cursor string `json:"cursor"`
	Repos  []struct {
		DID    string `json:"did"`
		Status string `json:"status"` // of an account that is not active
	} `json:"repos"`
}

// dids are the repositories of the page that may be there to be fetched. Those of
// inactive accounts are among them: they are fetched when the account comes back.
func (p page) dids() []syntax.DID {
	var out []syntax.DID
	for _, repo := range p.Repos {
		did, err := syntax.ParseDID(repo.DID)
		if err == nil && repo.Status != "deleted" {
			out = append(out, did)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// busy is a host's wish to be left alone for a while.
type busy struct{ wait time.Duration }

func (e *busy) Error() string {
	return fmt.Sprintf("the host asks for patience for %s", e.wait.Round(time.Second))
}

// page asks a host for the next page of a search, several times if it must be. A host
// that asks for patience gets it, and that is no failure.
func (b *Backfill) page(ctx context.Context, d store.Discovery) (page, error) {
	for tries := 0; ; {
		p, err := b.ask(ctx, d)
		if err == nil || ctx.Err() != nil || errors.Is(err, errNotOffered) || errors.Is(err, errRefused) {
			return p, err
		}
		wait := b.backoff(tries)
		if patience := (*busy)(nil); errors.As(err, &patience) {
			wait = patience.wait + b.backoff(0)
		} else if tries++; tries >= b.cfg.Tries {
			return p, err
		}
		b.cfg.Logger.InfoContext(ctx, "listing repositories will be repeated", "host", d.Host, "wait", wait, "error", err)
		if err := pause(ctx, wait); err != nil {
			return p, err
		}
	}
}

// ask asks once.
func (b *Backfill) ask(ctx context.Context, d store.Discovery) (p page, err error) {
	query := url.Values{"limit": {strconv.Itoa(b.cfg.PageSize)}}
	if d.Method == methodCollection {
		query.Set("collection", string(d.Collection))
	}
	if d.Cursor != "" {
		query.Set("cursor", d.Cursor)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.Host+"/xrpc/"+d.Method+"?"+query.Encode(), nil)
	if err != nil {
		return p, fmt.Errorf("listing repositories: %w", err)
	}
	request.Header.Set("User-Agent", b.cfg.UserAgent)
	request.Header.Set("Accept", "application/json")
	response, err := b.cfg.Client.Do(request)
	if err != nil {
		requests.WithLabelValues("failed").Inc()
		return p, fmt.Errorf("listing repositories: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxPage))
	if err == nil {
		p, err = answer(response, body)
	}
	requests.WithLabelValues(result(err)).Inc()
	if err != nil {
		return page{}, fmt.Errorf("listing repositories at %s: %w", d.Host, err)
	}
	return p, nil
}

// answer makes a page of a response, or says what the host means.
func answer(response *http.Response, body []byte) (p page, err error) {
	var failure struct{ Error, Message string }
	if response.StatusCode != http.StatusOK {
		_ = json.Unmarshal(body, &failure) // an answer without a name is judged by its status
	}
	said := fmt.Sprintf("status %d: %.100s: %.300s", response.StatusCode, failure.Error, failure.Message)
	switch status := response.StatusCode; {
	case status == http.StatusOK:
		if err := json.Unmarshal(body, &p); err != nil {
			return p, fmt.Errorf("the answer is no page: %w", err)
		}
		if len(p.Repos) == 0 && p.Repos == nil {
			return p, errors.New("the answer has no repos")
		}
		return p, nil
	case slices.Contains([]string{"MethodNotImplemented", "XRPCNotSupported", "UnknownMethod"}, failure.Error),
		status == http.StatusNotImplemented, status == http.StatusNotFound, status == http.StatusMethodNotAllowed,
		status == http.StatusUnauthorized, status == http.StatusForbidden: // a PDS passes methods that it lacks on, for its users alone
		return p, fmt.Errorf("%w: %s", errNotOffered, said)
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable && response.Header.Get("Retry-After") != "":
		return p, &busy{patience(response.Header)}
	case status == http.StatusBadRequest:
		return p, fmt.Errorf("%w: %s", errRefused, said)
	}
	return p, errors.New(said)
}

// patience is how long a host wants to be left alone: by Retry-After, in seconds or as
// a date, or by RateLimit-Reset, in seconds since 1970; a minute if it does not say.
func patience(header http.Header) time.Duration {
	wait := time.Minute
	if seconds, err := strconv.ParseInt(header.Get("Retry-After"), 10, 32); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if date, err := http.ParseTime(header.Get("Retry-After")); err == nil {
		wait = time.Until(date)
	} else if reset, err := strconv.ParseInt(header.Get("RateLimit-Reset"), 10, 64); err == nil {
		wait = time.Until(time.Unix(reset, 0))
	}
	return min(max(wait, 0), maxRetryAfter)
}

func result(err error) string {
	patience := (*busy)(nil)
	switch {
	case err == nil:
		return "answered"
	case errors.As(err, &patience):
		return "busy"
	case errors.Is(err, errNotOffered):
		return "not_offered"
	}
	return "failed"
}

package resync

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"github.com/layers-pub/layers-appview/indexer/verify"
	"github.com/layers-pub/layers-appview/internal/store"
)

// Config says what to fetch, whence, and how gently. Zero sizes and times take the
// defaults.
type Config struct {
	Queue    Queue
	Contents contents
	Catalog  checker
	Verifier signer
	// Identities says which host an account has its repository at.
	Identities identities
	// Tombstoned is what the look-up of an account that is deleted for good wraps; nil
	// where look-ups do not tell.
	Tombstoned error
	// Follow names the collections that are fetched: NSIDs, and patterns as app.bsky.*.
	Follow []string

	// Relays are asked first, in this order, by their addresses for plain requests;
	// then the account's own host is.
	Relays []string
	// Network reaches hosts that the network names, and must guard against those that
	// are not on the public Internet. Operator reaches the relays.
	Network, Operator http.RoundTripper
	UserAgent         string
	Logger            *slog.Logger

	Dir         string // where repositories are kept while they are read: not in memory. The system's for temporary files by default
	Limits      Limits
	Concurrency int           // repositories at once; 8 by default
	PerHost     int           // of them of one host, and requests to one host at once; 4 by default
	HostRate    float64       // requests to one host a second; 10 by default
	PollEvery   time.Duration // how often the queue is looked at while there is nothing to do; 1 s by default
	AnswerTime  time.Duration // until a host begins to answer; 1 min by default
	StallTime   time.Duration // in which 64 KiB of a repository must come; 30 s by default
	Deadline    time.Duration // for all of a repository to come; 2 h by default
	FirstWait   time.Duration // after a first failure, at most; doubles up to an hour. 1 min by default
	HostWait    time.Duration // after three failures of a host in a row; doubles up to an hour. 30 s by default
}

// Queue is the durable list of repositories to fetch; see [store.Resyncs].
type Queue interface {
	Due(ctx context.Context, limit int, except []syntax.DID) ([]store.Due, error)
	Postpone(ctx context.Context, did syntax.DID, until time.Time, host, cause string) error
	Defer(ctx context.Context, did syntax.DID, until time.Time, host, cause string) error
	Delay(ctx context.Context, did syntax.DID, until time.Time) error
	Remove(ctx context.Context, did syntax.DID) error
}

// signer checks commits; see [verify.Verifier].
type signer interface {
	Signed(ctx context.Context, did syntax.DID, root cid.Cid, block []byte) (verify.Signed, error)
}

type identities interface {
	LookupDID(context.Context, syntax.DID) (*identity.Identity, error)
	Purge(context.Context, syntax.AtIdentifier) error
}

func (c *Config) setDefaults() {
	setDefault(&c.Limits.Bytes, 8<<30)
	setDefault(&c.Limits.Blocks, 6_000_000)
	setDefault(&c.Concurrency, 8)
	setDefault(&c.PerHost, 4)
	setDefault(&c.HostRate, 10)
	setDefault(&c.PollEvery, time.Second)
	setDefault(&c.AnswerTime, time.Minute)
	setDefault(&c.StallTime, 30*time.Second)
	setDefault(&c.Deadline, 2*time.Hour)
	setDefault(&c.FirstWait, time.Minute)
	setDefault(&c.HostWait, 30*time.Second)
}

func setDefault[T int | int64 | float64 | time.Duration](v *T, fallback T) {
	if *v <= 0 {
		*v = fallback
	}
}

// Resync fetches what the queue holds.
type Resync struct {
	cfg     Config
	client  *client
	spooler *spooler
	scope   scope
}

// New prepares; Run works.
func New(cfg Config) *Resync {
	cfg.setDefaults()
	cfg.Logger = cfg.Logger.With("component", "resync")
	c := &client{
		network: cfg.Network, operator: cfg.Operator, chosen: map[string]bool{}, userAgent: cfg.UserAgent,
		gates: newGates(cfg.PerHost, cfg.HostRate, cfg.HostWait), answerTime: cfg.AnswerTime, progress: progress{cfg.StallTime, 64 << 10},
	}
	for _, relay := range cfg.Relays {
		c.chosen[hostOf(relay)] = true
	}
	return &Resync{cfg: cfg, client: c, spooler: newSpooler(cfg.Dir, cfg.Limits), scope: newScope(cfg.Follow)}
}

// hostOf is the host and port of an address; the text itself where it is none.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return address
	}
	return strings.ToLower(u.Host)
}

// Run fetches repositories as they become due, until ctx ends.
func (r *Resync) Run(ctx context.Context, line Line) error {
	return newSchedule(r, line).run(ctx)
}

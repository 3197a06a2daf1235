package resync

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/indexer/verify"
	"github.com/layers-pub/layers-appview/internal/store"
)

// fetch is one repository's: from its hosts to the index.
type fetch struct {
	*Resync
	line Line
	did  syntax.DID
	row  store.Repo // as it was when events began to be held back
	pds  string
	sure bool // pds was looked up afresh
	gone bool // that look-up said that the account is deleted
	back word // that the account is active again
}

// result is a fetch that succeeded.
type result struct {
	to     Fetched
	host   string
	bytes  int64
	counts counts
}

// run asks one host after the other until one has a repository that holds. What an
// account's own host says is the failure that counts; where it has no good answer,
// the account may have moved.
func (f *fetch) run(ctx context.Context) (result, error) {
	var last error
	for _, base := range f.sources() {
		res, err := f.try(ctx, base)
		if err == nil || ctx.Err() != nil {
			return res, err
		}
		if _, ok := asFailure(err); !ok {
			return result{}, err
		}
		last = err
	}
	if !f.moved(ctx, last) {
		return result{}, last
	}
	return f.try(ctx, f.pds)
}

// sources are the relays, without those that only point to the account's host, and
// that host.
func (f *fetch) sources() []string {
	var list []string
	for _, relay := range f.cfg.Relays {
		host := hostOf(relay)
		if host == hostOf(f.pds) {
			continue
		}
		gate := f.client.gates.at(host)
		if !gate.passesOn() {
			list = append(list, relay)
		}
		gate.done()
	}
	return append(list, f.pds)
}

// moved looks the identity up afresh, and tells whether the account's host is
// another one now.
func (f *fetch) moved(ctx context.Context, err error) bool {
	failure, ok := asFailure(err)
	if !ok || failure.patient() || failure.Class == Identity {
		return false
	}
	was := f.pds
	return f.refresh(ctx) == nil && hostOf(f.pds) != hostOf(was)
}

// try fetches from one host. Whatever is the host's fault is a [Failure].
func (f *fetch) try(ctx context.Context, base string) (result, error) {
	sp, host, err := f.spool(ctx, base)
	if err != nil {
		return result{}, f.note(ctx, host, err)
	}
	defer sp.close()
	bytesRead.Add(float64(sp.size))
	began := time.Now()
	res, err := f.apply(ctx, sp, host)
	seconds.WithLabelValues("apply").Observe(time.Since(began).Seconds())
	if err != nil {
		return result{}, f.note(ctx, host, err)
	}
	return res, nil
}

// note makes failures of refusals, counts them, and says them to who debugs.
func (f *fetch) note(ctx context.Context, host string, err error) error {
	if _, ok := IsRefusal(err); ok {
		err = &Failure{Class: Refused, Host: host, Err: err}
	}
	if failure, ok := asFailure(err); ok && ctx.Err() == nil {
		failures.WithLabelValues(string(failure.Class)).Inc()
		f.cfg.Logger.DebugContext(ctx, "no repository from this host", "did", f.did, "host", failure.Host, "class", string(failure.Class), "error", failure.Err)
	}
	return err
}

// spool reads a repository from a host, or from where that points to.
func (f *fetch) spool(ctx context.Context, base string) (*spool, string, error) {
	began := time.Now()
	defer func() { seconds.WithLabelValues("read").Observe(time.Since(began).Seconds()) }()
	a, err := f.client.ask(ctx, base, "com.atproto.sync.getRepo", "did", f.did)
	if err != nil {
		return nil, hostOf(base), err
	}
	defer a.close()
	late := time.AfterFunc(f.cfg.Deadline, func() { a.cancel(errLate) })
	defer late.Stop()
	sp, err := f.spooler.read(ctx, a)
	if broken, ok := asBodyError(err); ok {
		return nil, a.host, a.failed(Network, broken)
	}
	if err == nil {
		a.gate.answered()
	}
	return sp, a.host, err
}

// apply checks the commit and brings the index to its tree.
func (f *fetch) apply(ctx context.Context, sp *spool, host string) (result, error) {
	signed, err := f.commit(ctx, sp, host)
	if err != nil {
		return result{}, err
	}
	tree, err := newWalk(sp, signed.Data, f.scope)
	if err != nil {
		return result{}, err
	}
	stored, err := f.cfg.Contents.RepoCollections(ctx, f.did)
	if err != nil {
		return result{}, fmt.Errorf("reading what the index has of %s: %w", f.did, err)
	}
	d := &diff{line: f.line, contents: f.cfg.Contents, checker: f.cfg.Catalog, did: f.did, rev: signed.Rev, host: host}
	err = d.apply(ctx, sp, tree, f.scope.collections(stored))
	d.counts.observe()
	if err != nil {
		return result{}, err
	}
	to := Fetched{Rev: signed.Rev, CommitCID: syntax.CID(signed.CID.String()), Data: syntax.CID(signed.Data.String()), PDS: signed.PDS}
	return result{to: to, host: host, bytes: sp.size, counts: d.counts}, nil
}

// commit reads the signed commit and holds it to what the stream has shown.
func (f *fetch) commit(ctx context.Context, sp *spool, host string) (verify.Signed, error) {
	block, err := sp.get(sp.root)
	if err != nil {
		return verify.Signed{}, fmt.Errorf("the commit: %w", err)
	}
	signed, err := f.cfg.Verifier.Signed(ctx, f.did, sp.root, bytes.Clone(block))
	if ctx.Err() != nil {
		return verify.Signed{}, ctx.Err()
	}
	if refusal, ok := verify.IsRefusal(err); ok && refusal.Reason != verify.Identity {
		return verify.Signed{}, &Refusal{Reason: Commit, Err: err}
	}
	if err != nil {
		return verify.Signed{}, &Failure{Class: Identity, Host: host, Err: err}
	}
	if signed.Rev < f.row.Seen {
		return verify.Signed{}, refuse(Stale, "its rev is %s, the stream has shown %s", signed.Rev, f.row.Seen)
	}
	return signed, nil
}

package indexer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer"
	"github.com/layers-pub/layers-appview/indexer/resync"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// The steps of a fetch, in their order.
const (
	begun   = "begun"
	fetched = "fetched"
	halfway = "halfway"
	written = "written"
	ended   = "ended"
)

// fetcher is the plainest resync there can be, one repository at a time: what the
// line does with it is what these tests are about. Its steps can be caught.
type fetcher struct {
	t       *testing.T
	rig     *rig
	list    *store.Resyncs
	catalog *catalog.Catalog

	mu      sync.Mutex
	at      func(ctx context.Context, step string, did syntax.DID) error // called at each step
	fetched map[syntax.DID]int                                           // fetches that were finished
	failed  map[syntax.DID][]error
	begun   map[syntax.DID][]store.Repo
}

// fetching makes the rig's lines fetch.
func (r *rig) fetching() *fetcher {
	r.t.Helper()
	c, err := catalog.Load()
	require.NoError(r.t, err)
	f := &fetcher{
		t: r.t, rig: r, list: store.NewResyncs(r.db.Pool), catalog: c,
		fetched: map[syntax.DID]int{}, failed: map[syntax.DID][]error{}, begun: map[syntax.DID][]store.Repo{},
	}
	r.fetcher = f
	before := r.adjust
	r.adjust = func(cfg *indexer.Config) {
		cfg.Resync = f
		if before != nil {
			before(cfg)
		}
	}
	return f
}

// catch has a function called at each step.
func (f *fetcher) catch(at func(ctx context.Context, step string, did syntax.DID) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = at
}

// onceFetched has a function called when a repository has been fetched, the first time.
func (f *fetcher) onceFetched(do func()) {
	var once sync.Once
	f.catch(func(_ context.Context, step string, _ syntax.DID) error {
		if step == fetched {
			once.Do(do)
		}
		return nil
	})
}

func (f *fetcher) step(ctx context.Context, step string, did syntax.DID) error {
	f.mu.Lock()
	at := f.at
	f.mu.Unlock()
	if at == nil {
		return ctx.Err()
	}
	return errors.Join(at(ctx, step, did), ctx.Err())
}

func (f *fetcher) Run(ctx context.Context, line resync.Line) error {
	for {
		due, err := f.list.Due(ctx, 10, nil)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		for _, d := range due {
			f.note(d.DID, f.fetch(ctx, line, d.DID))
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (f *fetcher) note(did syntax.DID, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.failed[did] = append(f.failed[did], err)
	} else {
		f.fetched[did]++
	}
}

func (f *fetcher) finished(did syntax.DID) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fetched[did]
}

// finishes waits until so many fetches of a repository are known to be finished: the
// database shows the end of one before that.
func (f *fetcher) finishes(did syntax.DID, n int) {
	f.t.Helper()
	require.Eventually(f.t, func() bool { return f.finished(did) == n }, patient, tick, "%s was not fetched %d times", did, n)
}

func (f *fetcher) failures(did syntax.DID) []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed[did]
}

func (f *fetcher) fetch(ctx context.Context, line resync.Line, did syntax.DID) error {
	row, err := line.Begin(ctx, did)
	if err != nil {
		return errors.Join(err, line.Abandon(ctx, did, "begin failed"))
	}
	f.mu.Lock()
	f.begun[did] = append(f.begun[did], row)
	f.mu.Unlock()
	err = f.step(ctx, begun, did)
	if err == nil && !row.Active && row.Status == store.StatusDeleted {
		return f.erase(ctx, line, did)
	}
	if err == nil {
		err = f.compare(ctx, line, did)
	}
	if err != nil {
		err = errors.Join(err, line.Abandon(ctx, did, err.Error()))
		return errors.Join(err, f.list.Postpone(ctx, did, time.Now().Add(20*time.Millisecond), "", err.Error()))
	}
	return f.step(ctx, ended, did)
}

func (f *fetcher) compare(ctx context.Context, line resync.Line, did syntax.DID) error {
	to, changes, letters, err := f.download(ctx, did)
	if err != nil {
		return err
	}
	if err := f.step(ctx, fetched, did); err != nil {
		return err
	}
	if err := line.Write(ctx, changes[:len(changes)/2], letters); err != nil {
		return err
	}
	if err := f.step(ctx, halfway, did); err != nil {
		return err
	}
	if err := line.Write(ctx, changes[len(changes)/2:], nil); err != nil {
		return err
	}
	if err := f.step(ctx, written, did); err != nil {
		return err
	}
	return line.Finish(ctx, did, to)
}

// download reads the whole repository and makes the difference of it.
func (f *fetcher) download(ctx context.Context, did syntax.DID) (resync.Fetched, []store.Change, []store.DeadLetter, error) {
	fail := func(err error) (resync.Fetched, []store.Change, []store.DeadLetter, error) {
		return resync.Fetched{}, nil, nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.rig.server.URL()+"/xrpc/com.atproto.sync.getRepo?did="+string(did), nil)
	if err != nil {
		return fail(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fail(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return fail(errors.Join(err, fmt.Errorf("getRepo: %s: %s", response.Status, body)))
	}
	commit, whole, err := repo.LoadRepoFromCAR(ctx, bytes.NewReader(body))
	if err != nil {
		return fail(err)
	}
	to := resync.Fetched{Rev: syntax.TID(commit.Rev), Data: syntax.CID(commit.Data.String()), PDS: f.rig.server.URL(), CommitCID: "bafyreicommit"}
	stored, err := f.stored(ctx, did)
	if err != nil {
		return fail(err)
	}
	var changes []store.Change
	var letters []store.DeadLetter
	err = whole.MST.Walk(func(path []byte, c cid.Cid) error {
		collection, rkey, err := syntax.ParseRepoPath(string(path))
		if err != nil {
			return err
		}
		if _, ok := f.catalog.Collection(collection); !ok {
			return nil
		}
		key := record.Key{DID: did, Collection: collection, Rkey: rkey}
		block, err := whole.RecordStore.Get(ctx, c)
		if err != nil {
			return err
		}
		change := store.Change{Action: record.Create, Key: key, Rev: to.Rev, CID: syntax.CID(c.String()), Resync: true}
		checked, err := f.catalog.Check(key, block.RawData())
		if err != nil {
			letters = append(letters, store.DeadLetter{DID: did, Collection: collection, Rkey: rkey, Rev: to.Rev, CID: change.CID, Stage: "validate", Raw: block.RawData()})
			return nil
		}
		change.JSON, change.CreatedAt, change.Filter, change.Refs = checked.JSON, checked.CreatedAt, checked.Filter, checked.Refs
		changes = append(changes, change)
		delete(stored, key)
		return nil
	})
	for key := range stored {
		changes = append(changes, store.Change{Action: record.Delete, Key: key, Rev: to.Rev, Resync: true})
	}
	return to, changes, letters, err
}

func (f *fetcher) stored(ctx context.Context, did syntax.DID) (map[record.Key]syntax.CID, error) {
	out := map[record.Key]syntax.CID{}
	collections, err := f.rig.writer.RepoCollections(ctx, did)
	if err != nil {
		return nil, err
	}
	for _, collection := range collections {
		records, err := f.rig.writer.RepoRecords(ctx, did, collection, "", 100_000)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			out[record.Key{DID: did, Collection: collection, Rkey: r.Rkey}] = r.CID
		}
	}
	return out, nil
}

// erase removes everything of a deleted account.
func (f *fetcher) erase(ctx context.Context, line resync.Line, did syntax.DID) error {
	stored, err := f.stored(ctx, did)
	if err != nil {
		return err
	}
	var changes []store.Change
	for key := range stored {
		changes = append(changes, store.Change{Action: record.Delete, Key: key, Resync: true})
	}
	if err := line.Write(ctx, changes, nil); err != nil {
		return err
	}
	if err := f.step(ctx, written, did); err != nil {
		return err
	}
	return line.Purge(ctx, did)
}

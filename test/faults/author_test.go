package faults

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
)

// author writes to a network at random, and tells the oracle.
type author struct {
	*simulate.World
	oracle
	t     testing.TB
	dice  *rand.Rand
	maker *fixture.Maker
	dids  []syntax.DID
	have  map[syntax.DID][]key // records that are in the repository, whatever they are worth
	made  int
}

var collections = fixture.Collections()

const foreign = syntax.NSID("app.bsky.feed.post")

func newAuthor(t testing.TB, dice *rand.Rand, cfg simulate.Config) *author {
	t.Helper()
	cfg.Seed = dice.Uint64()
	w, err := simulate.NewWorld(cfg)
	require.NoError(t, err)
	a := &author{World: w, t: t, dice: dice, maker: fixture.New(dice.Uint64()), have: map[syntax.DID][]key{}}
	a.contents = map[string]map[string]any{}
	return a
}

// account makes an account, whose repository is empty.
func (a *author) account() syntax.DID {
	a.t.Helper()
	did, err := a.CreateAccount(fmt.Sprintf("author-%d", len(a.dids)))
	require.NoError(a.t, err)
	a.dids = append(a.dids, did)
	a.entries = append(a.entries, entry{seq: a.LastSeq(), key: key{did: did}})
	return did
}

// accounts makes accounts that begin with a record of ours. An index follows them from
// their beginning; one that begins otherwise is fetched whole once it is met, and then
// is ahead of the stream.
func (a *author) accounts(n int) {
	a.t.Helper()
	for range n {
		did := a.account()
		first := simulate.Create("pub.layers.corpus.corpus", "first", nil)
		first.Value, first.Barred = a.value(key{did, first.Collection, first.Rkey})
		a.write(did, first)
	}
}

// write makes a commit of some writes. What each is worth is found out by their Barred.
func (a *author) write(did syntax.DID, writes ...simulate.Write) record.Commit {
	a.t.Helper()
	return a.writeFaulty(did, simulate.NoFault, writes...)
}

func (a *author) writeFaulty(did syntax.DID, fault simulate.Fault, writes ...simulate.Write) record.Commit {
	a.t.Helper()
	commit, err := a.CommitFaulty(did, fault, writes...)
	require.NoError(a.t, err)
	if fault == simulate.ForgedSignature {
		return commit // it is not theirs
	}
	for _, w := range writes {
		k := key{did, w.Collection, w.Rkey}
		e := entry{seq: commit.Seq, key: k, gone: w.Action == record.Delete, refused: w.Barred}
		if !e.gone {
			e.cid = address(encode(w.Value))
			a.contents[e.cid] = w.Value
		}
		a.entries = append(a.entries, e)
		a.keep(k, e.gone)
	}
	return commit
}

func (a *author) keep(k key, gone bool) {
	at := slices.Index(a.have[k.did], k)
	switch {
	case gone:
		a.have[k.did] = slices.Delete(a.have[k.did], at, at+1)
	case at < 0:
		a.have[k.did] = append(a.have[k.did], k)
	}
}

// create is the write of a new record.
func (a *author) create(did syntax.DID) simulate.Write {
	collection := collections[a.dice.IntN(len(collections))]
	if a.dice.IntN(12) == 0 {
		collection = foreign
	}
	a.made++
	w := simulate.Create(collection, syntax.RecordKey(fmt.Sprintf("r%06d", a.made)), nil)
	w.Value, w.Barred = a.value(key{did, collection, w.Rkey})
	return w
}

// value is what may stand under a key; one in thirty is none that an index may take.
func (a *author) value(k key) (value map[string]any, barred bool) {
	a.made++
	if k.collection == foreign {
		return map[string]any{"$type": string(foreign), "text": fmt.Sprintf("post %d", a.made)}, false
	}
	value = a.maker.Record(k.collection, map[string]any{"mark": int64(a.made)})
	if a.dice.IntN(30) == 0 {
		value["createdAt"] = "some time ago"
		return value, true
	}
	return value, false
}

// change is one write of some kind to a repository, on none of the records that are
// written already.
func (a *author) change(did syntax.DID, taken map[key]bool) simulate.Write {
	var free []key
	for _, k := range a.have[did] {
		if !taken[k] {
			free = append(free, k)
		}
	}
	roll := a.dice.IntN(10)
	if len(free) < 3 || roll < 5 {
		return a.create(did)
	}
	k := free[a.dice.IntN(len(free))]
	taken[k] = true
	if roll < 8 {
		w := simulate.Update(k.collection, k.rkey, nil)
		w.Value, w.Barred = a.value(k)
		return w
	}
	return simulate.Delete(k.collection, k.rkey)
}

// commit makes a commit of one to five writes.
func (a *author) commit(did syntax.DID) record.Commit {
	a.t.Helper()
	taken := map[key]bool{}
	var writes []simulate.Write
	for range 1 + a.dice.IntN(5)*a.dice.IntN(2) {
		writes = append(writes, a.change(did, taken))
	}
	return a.write(did, writes...)
}

// play makes so many commits, by active accounts at random.
func (a *author) play(commits int) {
	a.t.Helper()
	for range commits {
		a.commit(a.active())
	}
}

func (a *author) active() syntax.DID {
	status := a.statuses()
	for {
		did := a.dids[a.dice.IntN(len(a.dids))]
		if status[did] == simulate.Active {
			return did
		}
	}
}

func (a *author) statuses() map[syntax.DID]simulate.Status {
	out := map[syntax.DID]simulate.Status{}
	for _, e := range a.entries {
		if e.key.collection == "" {
			out[e.key.did] = e.status
		}
	}
	return out
}

// status changes an account's status.
func (a *author) status(did syntax.DID, status simulate.Status) {
	a.t.Helper()
	before := a.LastSeq()
	require.NoError(a.t, a.SetStatus(did, status))
	a.entries = append(a.entries, entry{seq: before + 1, key: key{did: did}, status: status})
}

// close has every active account write once more, so that whatever was lost of it
// before shows. It returns the last event before that.
func (a *author) close() int64 {
	a.t.Helper()
	last := a.LastSeq()
	status := a.statuses()
	for _, did := range a.dids {
		if status[did] == simulate.Active {
			a.write(did, simulate.Create("pub.layers.corpus.corpus", syntax.RecordKey(fmt.Sprintf("close%d", last)),
				a.maker.Record("pub.layers.corpus.corpus")))
		}
	}
	return last
}

// lose sets a repository back to what it was after an event, as a host does that
// has lost data and says so by #sync alone.
func (a *author) lose(did syntax.DID, seq int64) {
	a.t.Helper()
	then := map[key]entry{}
	for _, e := range a.entries {
		if e.seq <= seq && e.key.did == did && e.key.collection != "" {
			then[e.key] = e
		}
	}
	var writes []simulate.Write
	for _, k := range slices.Clone(a.have[did]) {
		if e, ok := then[k]; !ok || e.gone {
			writes = append(writes, simulate.Delete(k.collection, k.rkey))
		}
	}
	present := a.presentEntries(did)
	for _, k := range slices.SortedFunc(maps.Keys(then), func(x, y key) int { return cmp.Compare(x.String(), y.String()) }) {
		e := then[k]
		at, has := present[k]
		switch {
		case e.gone || has && at.cid == e.cid:
		case has:
			writes = append(writes, simulate.Write{Action: record.Update, Collection: k.collection, Rkey: k.rkey, Value: a.contents[e.cid], Barred: e.refused})
		default:
			writes = append(writes, simulate.Write{Action: record.Create, Collection: k.collection, Rkey: k.rkey, Value: a.contents[e.cid], Barred: e.refused})
		}
	}
	for part := range slices.Chunk(writes, 150) {
		a.writeFaulty(did, simulate.Dropped, part...)
	}
	require.NoError(a.t, a.Sync(did))
}

func (a *author) presentEntries(did syntax.DID) map[key]entry {
	out := map[key]entry{}
	for _, e := range a.entries {
		if e.key.did == did && e.key.collection != "" {
			if out[e.key] = e; e.gone {
				delete(out, e.key)
			}
		}
	}
	return out
}

package verify_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/verify"
)

// TestConformance breaks each rule of the protocol alone: the account signs an event
// in which exactly that is wrong, and one in which it is right.
func TestConformance(t *testing.T) {
	t.Parallel()
	for group, rules := range map[string]map[string]rule{
		"event": envelopeRules, "signature": signatureRules, "ops": opRules, "blocks": blockRules,
	} {
		for name, r := range rules {
			t.Run(group+"/"+name, func(t *testing.T) {
				t.Parallel()
				holds := r.holds
				if holds == nil {
					holds = drafted(func(*draft) {})
				}
				f := newForger(t)
				f.accept(holds(f))
				f = newForger(t)
				_, err := f.verifier.Commit(t.Context(), r.breaks(f), all)
				require.Equal(t, r.want, reasonOf(t, err), "%v", err)
			})
		}
	}
	for name, r := range nodeRules() {
		t.Run("nodes/"+name, func(t *testing.T) {
			t.Parallel()
			f := newForger(t)
			_, err := f.verifier.Commit(t.Context(), r.holds(f), all)
			require.NotContains(t, err.Error(), "reading the tree", "the twin is a tree")
			f = newForger(t)
			_, err = f.verifier.Commit(t.Context(), r.breaks(f), all)
			require.Equal(t, r.want, reasonOf(t, err), "%v", err)
			require.ErrorContains(t, err, "reading the tree")
		})
	}
}

// TestOneRefreshOfTheIdentity counts the look-ups.
func TestOneRefreshOfTheIdentity(t *testing.T) {
	t.Parallel()
	f := newForger(t)
	require.EqualValues(t, 1, f.keys.lookups.Load(), "for the first commit")
	f.accept(f.writes().seal())
	require.EqualValues(t, 1, f.keys.lookups.Load(), "none while signatures fit")

	f.rotate(k256(t))
	f.accept(f.draft(map[string]string{path("rotated"): "x"}).seal())
	require.EqualValues(t, 2, f.keys.lookups.Load(), "one for the new key")
	require.EqualValues(t, 1, f.keys.purges.Load())

	f.key = k256(t) // which no document has
	_, err := f.verifier.Commit(t.Context(), f.draft(map[string]string{path("forged"): "x"}).seal(), all)
	require.Equal(t, verify.Signature, reasonOf(t, err))
	require.EqualValues(t, 3, f.keys.lookups.Load(), "one, and no second")

	for range 100 {
		_, err := f.verifier.Commit(t.Context(), f.draft(map[string]string{path("forged"): "y"}).seal(), all)
		require.Equal(t, verify.Signature, reasonOf(t, err))
	}
	require.LessOrEqual(t, f.keys.lookups.Load(), int64(12), "a flood of forgeries is not paid for by the directory")
	require.NoError(t, f.verifier.Forget(t.Context(), f.did))
	before := f.keys.lookups.Load()
	_, err = f.verifier.Commit(t.Context(), f.draft(nil).seal(), all)
	require.Equal(t, verify.Signature, reasonOf(t, err))
	require.Equal(t, before+2, f.keys.lookups.Load(), "after #identity the account has its refreshes again")
}

// TestTreesThatWouldCostTooMuch are within the size that blocks may have.
func TestTreesThatWouldCostTooMuch(t *testing.T) {
	t.Parallel()
	t.Run("each node refers to the next a hundred times", func(t *testing.T) {
		t.Parallel()
		f := newForger(t)
		nodes := []block{leaf}
		for height := 1; height < 5; height++ {
			var keys []string
			for n := range 100 {
				keys = append(keys, keyAt(height, min(n, 400>>(2*height))))
			}
			slices.Sort(keys)
			keys = slices.Compact(keys)
			var entries []mst.EntryData
			for i, key := range keys {
				e := entry(key, ptr(nodes[0]))
				if i > 0 {
					e = compressed(key, keys[i-1], 0)
					e.Right = ptr(nodes[0])
				}
				entries = append(entries, e)
			}
			nodes = append([]block{node(ptr(nodes[0]), entries...)}, nodes...)
		}
		_, err := f.verifier.Commit(t.Context(), f.writes().tree(nodes...).seal(), all)
		require.Equal(t, verify.Tree, reasonOf(t, err))
		require.ErrorContains(t, err, "stands in a wrong place")
	})
	t.Run("keys that are abbreviated to nothing", func(t *testing.T) {
		t.Parallel()
		f := newForger(t)
		stem := path(strings.Repeat("x", 900))
		var entries []mst.EntryData
		last := ""
		for i := 0; len(entries) < 20_000; i++ {
			key := fmt.Sprintf("%s%06d", stem, i)
			if mst.HeightForKey([]byte(key)) != 0 {
				continue
			}
			if last == "" {
				entries = append(entries, entry(key, nil))
			} else {
				entries = append(entries, compressed(key, last, 0))
			}
			last = key
		}
		msg := f.writes().tree(bigNode(entries)).seal()
		require.Less(t, len(msg.Blocks), verify.MaxBlocks)
		_, err := f.verifier.Commit(t.Context(), msg, all)
		require.Equal(t, verify.Limit, reasonOf(t, err), "%v", err)
	})
}

// bigNode encodes more entries than the generated encoder takes.
func bigNode(entries []mst.EntryData) block {
	var out bytes.Buffer
	out.WriteString("\xa2\x61e\x99")
	out.Write([]byte{byte(len(entries) >> 8), byte(len(entries))})
	for _, e := range entries {
		_ = e.MarshalCBOR(&out)
	}
	out.WriteString("\x61l\xf6")
	return dagCBOR(out.Bytes())
}

// TestLenient takes what a host of the old protocol sends, and shows what is given up.
func TestLenient(t *testing.T) {
	t.Parallel()
	legacy := func(m *event) {
		m.PrevData = nil
		for _, o := range m.Ops {
			o.Prev = nil
		}
	}
	for name, c := range map[string]struct {
		event   func(f *forger) *event
		lenient verify.Reason // empty: it is taken
	}{
		"no prevData and no prev":     {altered(legacy), ""},
		"no prevData":                 {altered(func(m *event) { m.PrevData = nil }), ""},
		"no prev":                     {altered(func(m *event) { opOn(m.Ops, "update").Prev = nil }), ""},
		"a change without its op":     {altered(func(m *event) { legacy(m); m.Ops = m.Ops[1:] }), ""}, // what is given up
		"an op that the tree has not": {altered(func(m *event) { legacy(m); opOn(m.Ops, "create").Cid = link() }), verify.Tree},
		"a delete that is none":       {altered(func(m *event) { legacy(m); opOn(m.Ops, "delete").Path = path("base03") }), verify.Tree},
		"a path twice":                {altered(func(m *event) { legacy(m); m.Ops = append(m.Ops, m.Ops[0]) }), verify.Malformed},
		"a node that is missing": {func(f *forger) *event {
			d := f.writes()
			d.nodes = d.nodes[:1]
			msg := d.seal()
			legacy(msg)
			return msg
		}, verify.Tree},
		"a forged signature": {func(f *forger) *event {
			f.key = k256(f.t)
			msg := f.writes().seal()
			legacy(msg)
			return msg
		}, verify.Signature},
		"prevData that lies": {altered(func(m *event) { m.PrevData = link() }), verify.Tree},
		"tooBig":             {altered(func(m *event) { legacy(m); m.TooBig = true }), verify.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			strict := newForger(t)
			_, err := strict.verifier.Commit(t.Context(), c.event(strict), all)
			reasonOf(t, err)
			lenient := newForger(t, verify.Lenient(true))
			verified, err := lenient.verifier.Commit(t.Context(), c.event(lenient), all)
			if c.lenient == "" {
				require.NoError(t, err)
				require.NotEmpty(t, verified.Commit.Ops)
				return
			}
			require.Equal(t, c.lenient, reasonOf(t, err), "%v", err)
		})
	}
}

// TestSyncConformance is the same for #sync events.
func TestSyncConformance(t *testing.T) {
	t.Parallel()
	type sync = comatproto.SyncSubscribeRepos_Sync
	announce := func(d *draft) *sync {
		msg := d.seal()
		d.nodes, d.records = nil, nil
		return &sync{Did: msg.Repo, Rev: msg.Rev, Blocks: d.seal().Blocks, Time: msg.Time, Seq: 1}
	}
	for name, c := range map[string]struct {
		draft func(*draft)
		alter func(*sync)
		want  verify.Reason
	}{
		"it holds":                        {},
		"its did is the signed did":       {alter: func(s *sync) { s.Did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa" }, want: verify.Malformed},
		"its did is a DID":                {alter: func(s *sync) { s.Did = "amara" }, want: verify.Malformed},
		"its rev is the signed rev":       {alter: func(s *sync) { s.Rev = tidIn(0) }, want: verify.Malformed},
		"its rev is not in the future":    {draft: func(d *draft) { d.commit.Rev = tidIn(6 * time.Minute) }, want: verify.Future},
		"the account has signed":          {draft: func(d *draft) { d.f.key = k256(d.f.t) }, want: verify.Signature},
		"its blocks have 10,000 bytes":    {alter: func(s *sync) { s.Blocks = append(s.Blocks, make([]byte, verify.MaxSync)...) }, want: verify.Limit},
		"its blocks are a CAR":            {alter: func(s *sync) { s.Blocks = s.Blocks[:len(s.Blocks)-1] }, want: verify.Blocks},
		"its blocks have the commit":      {alter: func(s *sync) { s.Blocks = s.Blocks[:59] }, want: verify.Blocks},
		"further blocks are no fault":     {draft: func(d *draft) { d.extra = []block{elsewhere} }},
		"the signed commit is of version": {draft: func(d *draft) { d.commit.Version = 2 }, want: verify.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newForger(t)
			d := f.writes()
			if c.draft != nil {
				c.draft(d)
			}
			msg := announce(d)
			if c.alter != nil {
				c.alter(msg)
			}
			commit, err := f.verifier.Sync(t.Context(), msg)
			if c.want == "" {
				require.NoError(t, err)
				require.EqualValues(t, msg.Rev, commit.Rev)
				require.EqualValues(t, d.commit.Data.String(), commit.Data)
				return
			}
			require.Equal(t, c.want, reasonOf(t, err), "%v", err)
		})
	}
}

// TestSigned checks commit blocks that did not come with the stream.
func TestSigned(t *testing.T) {
	t.Parallel()
	f := newForger(t)
	head := func(d *draft) block {
		d.seal()
		var signed bytes.Buffer
		require.NoError(t, d.commit.MarshalCBOR(&signed))
		return dagCBOR(signed.Bytes())
	}
	d := f.writes()
	good := head(d)
	signed, err := f.verifier.Signed(t.Context(), f.did, good.cid, good.data)
	require.NoError(t, err)
	require.Equal(t, verify.Signed{DID: f.did, Rev: f.rev, CID: good.cid, Data: d.commit.Data}, signed)

	_, err = f.verifier.Signed(t.Context(), f.did, elsewhere.cid, good.data)
	require.Equal(t, verify.Blocks, reasonOf(t, err))
	_, err = f.verifier.Signed(t.Context(), "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", good.cid, good.data)
	require.Equal(t, verify.Malformed, reasonOf(t, err))
	_, err = f.verifier.Signed(t.Context(), f.did, elsewhere.cid, elsewhere.data)
	require.Equal(t, verify.Blocks, reasonOf(t, err))

	future := f.another()
	future.commit.Rev = tidIn(6 * time.Minute)
	late := head(future)
	_, err = f.verifier.Signed(t.Context(), f.did, late.cid, late.data)
	require.Equal(t, verify.Future, reasonOf(t, err))
	f.key = k256(t)
	forged := head(f.draft(nil))
	_, err = f.verifier.Signed(t.Context(), f.did, forged.cid, forged.data)
	require.Equal(t, verify.Signature, reasonOf(t, err))
}

func (f *forger) another() *draft { return f.draft(map[string]string{path("second"): "second"}) }

package verify_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	lexutil "github.com/bluesky-social/indigo/lex/util"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/verify"
	"github.com/layers-pub/layers-appview/internal/record"
)

// contents is what a repository holds, by path.
func (f *forger) contents() map[string]cid.Cid {
	out := map[string]cid.Cid{}
	require.NoError(f.t, f.tree.WriteToMap(out))
	return out
}

// difference is the slow check: the ops that lead from one repository to another,
// found by comparing all that they hold.
func difference(before, after map[string]cid.Cid) map[string]record.Action {
	out := map[string]record.Action{}
	for p, value := range after {
		if was, ok := before[p]; !ok {
			out[p] = record.Create
		} else if was != value {
			out[p] = record.Update
		}
	}
	for p := range before {
		if _, ok := after[p]; !ok {
			out[p] = record.Delete
		}
	}
	return out
}

func rootOf(t testing.TB, contents map[string]cid.Cid) cid.Cid {
	tree, err := mst.LoadTreeFromMap(contents)
	require.NoError(t, err)
	root, err := tree.RootCID()
	require.NoError(t, err)
	return *root
}

// tamper changes what nobody has signed in an event: the ops and prevData. It tells
// how often.
func tamper(r *rand.Rand, msg *event, before, after map[string]cid.Cid) int {
	links := []*lexutil.LexLink{nil, link(), msg.PrevData}
	for _, contents := range []map[string]cid.Cid{before, after} {
		for _, p := range slices.Sorted(maps.Keys(contents)) {
			c := lexutil.LexLink(contents[p])
			links = append(links, &c)
		}
	}
	pick := func() *lexutil.LexLink { return links[r.IntN(len(links))] }
	times := r.IntN(4)
	for range times {
		if len(msg.Ops) == 0 {
			msg.Ops = []*comatproto.SyncSubscribeRepos_RepoOp{{Action: "create", Path: path("made-up"), Cid: pick()}}
			continue
		}
		i := r.IntN(len(msg.Ops))
		o := *msg.Ops[i]
		switch r.IntN(9) {
		case 0:
			o.Cid = pick()
		case 1:
			o.Prev = pick()
		case 2:
			o.Action = []string{"create", "update", "delete"}[r.IntN(3)]
		case 3:
			o.Path = path(fmt.Sprintf("base%02d", r.IntN(60)))
		case 4:
			msg.PrevData = pick()
		case 5:
			msg.Ops = append(msg.Ops[:i:i], msg.Ops[i+1:]...)
			continue
		case 6:
			msg.Ops = append(msg.Ops, &o)
			continue
		case 7:
			o.Cid, o.Prev = o.Prev, o.Cid
		case 8:
			j := r.IntN(len(msg.Ops))
			msg.Ops[i], msg.Ops[j] = msg.Ops[j], msg.Ops[i]
			continue
		}
		msg.Ops[i] = &o
	}
	return times
}

// FuzzHistory plays random histories, with events that are true and events that have
// been tampered with. True ones are accepted; whatever is accepted is the very
// difference between the repository before and after, by a check that undoes nothing.
// In the lenient form, an op that is accepted is at least shown by the tree.
func FuzzHistory(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		forge := newForger(t)
		lenient := verify.New(forge.keys, verify.Lenient(true))
		for step := range 8 {
			before := forge.contents()
			writes := map[string]string{}
			for range r.IntN(12) {
				p := path(fmt.Sprintf("base%02d", r.IntN(80)))
				if _, there := before[p]; there && r.IntN(2) == 0 {
					writes[p] = ""
				} else {
					writes[p] = fmt.Sprint(step, "/", r.IntN(1000))
				}
			}
			msg := forge.draft(writes).seal()
			after := forge.contents()
			tampered := tamper(r, msg, before, after) > 0
			verified, err := forge.verifier.Commit(t.Context(), msg, all)
			if err != nil {
				reasonOf(t, err)
				require.True(t, tampered, "%v", err)
			} else {
				requireDifference(t, verified.Commit, before, after)
			}
			if verified, err := lenient.Commit(t.Context(), msg, all); err == nil {
				requireShown(t, verified.Commit, after)
			} else {
				require.True(t, tampered, "%v", err)
			}
		}
	})
}

func requireDifference(t *testing.T, commit record.Commit, before, after map[string]cid.Cid) {
	t.Helper()
	want := difference(before, after)
	require.Len(t, commit.Ops, len(want))
	for _, o := range commit.Ops {
		require.Equal(t, want[o.Key.Path()], o.Action, o.Key)
	}
	requireShown(t, commit, after)
	require.Equal(t, rootOf(t, after).String(), string(commit.Data))
	require.Equal(t, rootOf(t, before).String(), string(commit.PrevData))
}

func requireShown(t *testing.T, commit record.Commit, after map[string]cid.Cid) {
	t.Helper()
	for _, o := range commit.Ops {
		value, there := after[o.Key.Path()]
		require.Equal(t, there, o.Action != record.Delete, o.Key)
		if there {
			require.Equal(t, value.String(), string(o.CID), o.Key)
			require.Equal(t, value, dagCBOR(o.CBOR).cid)
		}
	}
}

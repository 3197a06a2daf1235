package faults

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/simulate/fault"
	"github.com/layers-pub/layers-appview/test/rig"
)

const (
	accounts = 24
	commits  = 1600
)

// written is a history that ended before anybody reads it: the stream that faults
// are put into. Everything in it after its until is beyond them.
type written struct {
	*author
	until int64
}

var history = sync.OnceValue(func() (h written) {
	h.author = newAuthor(panicking{}, rand.New(rand.NewPCG(3, 7)), simulate.Config{})
	for range accounts {
		h.account()
	}
	h.play(commits / 2)
	h.status(h.dids[5], simulate.Deactivated)
	h.status(h.dids[6], simulate.Suspended)
	h.status(h.dids[7], simulate.TakenDown)
	h.play(commits / 4)
	h.status(h.dids[5], simulate.Active)
	h.status(h.dids[8], simulate.Deactivated)
	h.status(h.dids[9], simulate.Deleted)
	h.play(commits / 4)
	h.until = h.close()
	return h
})

// panicking stands for the test in what is made once for all tests.
type panicking struct{ testing.TB }

func (panicking) Helper()                   {}
func (panicking) Errorf(f string, a ...any) { panic(f) }
func (panicking) FailNow()                  { panic("the history could not be written") }

// survives has the program read the history with faults in it.
func survives(t *testing.T, faults ...fault.Fault) {
	t.Helper()
	h := history()
	l := newLab(t, h.author, rig.OpenQueues(t))
	l.network.Add(faults...)
	ix := l.Indexer("--no-workers")
	l.equal(ix)
	happened(t, faults...)
	ix.Stop()
}

// TestStreamFaults puts each fault alone into the stream.
func TestStreamFaults(t *testing.T) {
	h := history()
	rare := fault.OneIn(40, "rare", h.until)
	some := fault.OneIn(12, "some", h.until)
	first := h.until / 3
	garbage := bytes.Repeat([]byte{0xde, 0xad}, 1500)
	fields := fault.WrongFields(rare)
	tried := []*fault.Stream{ // one of each class
		fault.Duplicate(some),
		fault.Swap(some, false),
		fault.Rewind(rare, 40),
		fault.Disconnect(rare).AtMost(8),
		fault.Silent(fault.At(first)),
		fault.Refusal(fault.At(first, 2*first), "ConsumerTooSlow"),
		fault.Insert("garbage", rare, garbage),
		fault.Insert("frame over the limit", fault.At(first), make([]byte, 5_000_001)),
		fault.Drop(rare),
		fault.Gap(first, first+200),
		fault.CorruptNoise(rare),
		fault.CorruptBlocks(rare, fault.Record),
		fault.MissingBlock(rare, fault.Node),
		fault.CorruptSignature(rare),
		fault.WrongKey(rare),
		fault.WrongRepository(rare, string(h.dids[0])),
		fault.TooBig(rare),
		fields[0],
	}
	others := append([]*fault.Stream{
		fault.Slow(some, 2*time.Millisecond),
		fault.Insert("empty frame", rare, nil),
		fault.Insert("unknown type", rare, fault.UnknownType()),
		fault.Swap(rare, true),
		fault.CorruptHeader(rare),
		fault.CorruptBody(rare),
		fault.CorruptBlocks(rare, fault.Header),
		fault.CorruptBlocks(rare, fault.Commit),
		fault.CorruptBlocks(rare, fault.Node),
		fault.CorruptBlocks(rare, fault.CID),
		fault.MissingBlock(rare, fault.Record),
		fault.Legacy(rare),
	}, fields[1:]...)
	for _, f := range withOthers(t, tried, others) {
		t.Run(f.Name(), func(t *testing.T) {
			t.Parallel()
			survives(t, f)
		})
	}
}

package resync

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/store"
)

// nowhere is a line and contents that keep nothing.
type nowhere struct{ Line }

func (nowhere) Write(context.Context, []store.Change, []store.DeadLetter) error { return nil }
func (nowhere) RepoCollections(context.Context, syntax.DID) ([]syntax.NSID, error) {
	return nil, nil
}
func (nowhere) RepoRecords(context.Context, syntax.DID, syntax.NSID, syntax.RecordKey, int) ([]store.Stored, error) {
	return nil, nil
}

// largeRepository writes a repository's CAR with so many records to a file.
func largeRepository(t testing.TB, records int) (data cid.Cid, car *os.File) {
	t.Helper()
	record := func(i int) []byte {
		block, err := atdata.MarshalCBOR(corpusValue(fmt.Sprintf("corpus %07d", i)))
		require.NoError(t, err)
		return block
	}
	entries := make([]entry, records)
	for i := range entries {
		entries[i] = entry{fmt.Sprintf("%s/r%07d", corpora, i), cidOf(record(i))}
	}
	data, nodes := treeOf(t, entries)
	car, err := os.Create(filepath.Join(t.TempDir(), "large.car"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = car.Close() })
	out := bufio.NewWriter(car)
	_, err = out.Write(encode(data, nodes...))
	require.NoError(t, err)
	for i := range records {
		block := record(i)
		head := append(binary.AppendUvarint(nil, uint64(36+len(block))), cidOf(block).Bytes()...)
		_, err := out.Write(append(head, block...))
		require.NoError(t, err)
	}
	require.NoError(t, out.Flush())
	_, err = car.Seek(0, io.SeekStart)
	require.NoError(t, err)
	return data, car
}

// TestALargeRepositoryNeedsLittleMemory takes a repository of 200,000 records the
// whole way but for PostgreSQL and watches the heap.
func TestALargeRepositoryNeedsLittleMemory(t *testing.T) {
	const records = 200_000
	const bound = 40 << 20
	data, car := largeRepository(t, records)
	c, err := catalog.Load()
	require.NoError(t, err)
	spools := newSpooler(t.TempDir(), Limits{Bytes: 1 << 30, Blocks: 1 << 20})
	base := heapNow()
	peak, stop := watchHeap()
	sp, err := spools.read(t.Context(), car)
	require.NoError(t, err)
	defer sp.close()
	indexed := heapNow() - base
	tree, err := newWalk(sp, data, layersAlone)
	require.NoError(t, err)
	d := &diff{line: nowhere{}, contents: nowhere{}, checker: c, did: "did:plc:large", rev: "3jzfcijpj2z2a"}
	require.NoError(t, d.apply(t.Context(), sp, tree, nil))
	stop()
	require.Equal(t, counts{created: records}, d.counts)
	most := peak.Load() - base
	t.Logf("%d records, %d blocks, %d bytes: index %.1f MiB (%.1f bytes a block), peak heap %.1f MiB above %.1f MiB",
		records, sp.index.blocks, sp.size, mib(indexed), float64(indexed)/float64(sp.index.blocks), mib(most), mib(base))
	require.Less(t, most, int64(bound))
	require.Less(t, most, sp.size, "it was never in memory whole")
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func heapNow() int64 {
	runtime.GC()
	return heapInUse()
}

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// watchHeap samples the heap, garbage included, until it is stopped.
func watchHeap() (peak *atomic.Int64, stop func()) {
	peak = &atomic.Int64{}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if now := heapInUse(); now > peak.Load() {
				peak.Store(now)
			}
			select {
			case <-end:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return peak, func() { close(end); <-ended }
}

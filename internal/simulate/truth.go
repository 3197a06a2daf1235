package simulate

import (
	"cmp"
	"iter"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
)

// View selects what [World.Records] yields.
type View struct {
	// Through is the last event that counts; 0 means the whole history.
	Through int64
	// Inactive adds records of accounts that are deactivated, suspended or taken
	// down. Records of deleted accounts are gone in any case.
	Inactive bool
	// Barred adds records that an index must refuse; see [Write].
	Barred bool
}

// Entry is a record that the world holds.
type Entry struct {
	Key  record.Key
	CID  syntax.CID
	CBOR []byte // the record's block; not to be changed
}

// Records yields what an index of the whole network must hold, sorted by key,
// foreign collections included: the truth to compare an index with.
func (w *World) Records(view View) iter.Seq[Entry] {
	entries := w.entries(view)
	return slices.Values(entries)
}

func (w *World) entries(view View) []Entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	records := map[record.Key]change{}
	status := map[syntax.DID]Status{}
	for _, c := range w.journal {
		switch {
		case view.Through != 0 && c.seq > view.Through:
			continue
		case c.key == record.Key{}:
			status[c.did] = c.status
		case c.cid.Defined():
			records[c.key] = c
		default:
			delete(records, c.key)
		}
	}
	entries := make([]Entry, 0, len(records))
	for key, c := range records {
		s := status[c.did]
		if s == Deleted || s != Active && !view.Inactive || c.barred && !view.Barred {
			continue
		}
		entries = append(entries, Entry{Key: key, CID: syntax.CID(c.cid.String()), CBOR: w.blocks[c.cid]})
	}
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Key.String(), b.Key.String()) })
	return entries
}

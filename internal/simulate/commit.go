package simulate

import (
	"bytes"
	"context"
	"fmt"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/bluesky-social/indigo/cmd/relay/stream"
	lexutil "github.com/bluesky-social/indigo/lex/util"
	"github.com/ipfs/go-cid"

	"github.com/layers-pub/layers-appview/internal/record"
)

const (
	maxWrites      = 200             // of com.atproto.repo.applyWrites
	maxCommitBytes = 2_000_000 - 1e5 // of the blocks of #commit, less room for tree nodes
)

// Write is one change to make to a repository.
type Write struct {
	Action     record.Action
	Collection syntax.NSID
	Rkey       syntax.RecordKey
	// Value is the record in indigo's atdata form; nil for a delete.
	Value map[string]any
	// Block is the record's block as it stands, in place of Value: for bytes that
	// no encoder would make.
	Block []byte
	// Barred says that an index must refuse the record, because its lexicon or
	// the data model does. It is in the repository all the same.
	Barred bool
}

// Create is the write that makes a record.
func Create(collection syntax.NSID, rkey syntax.RecordKey, value map[string]any) Write {
	return Write{Action: record.Create, Collection: collection, Rkey: rkey, Value: value}
}

// Update is the write that replaces a record.
func Update(collection syntax.NSID, rkey syntax.RecordKey, value map[string]any) Write {
	return Write{Action: record.Update, Collection: collection, Rkey: rkey, Value: value}
}

// Delete is the write that removes a record.
func Delete(collection syntax.NSID, rkey syntax.RecordKey) Write {
	return Write{Action: record.Delete, Collection: collection, Rkey: rkey}
}

func (wr Write) path() string { return string(wr.Collection) + "/" + string(wr.Rkey) }

// Fault is a way for a commit to be wrong.
type Fault int

// The faults of [World.CommitFaulty]. All but ForgedSignature leave the repository
// as the writes say, and only the event is wrong: the next commit chains to this one.
const (
	NoFault Fault = iota
	// ForgedSignature is a commit that somebody else signed. The repository has
	// no part in it: its next commit chains to the one before.
	ForgedSignature
	// WrongPrevData names another tree as the one before.
	WrongPrevData
	// MissingBlock leaves out the last record's block, or the tree's root where
	// the commit writes no record.
	MissingBlock
	// Dropped is a commit whose event never appears; its sequence number is skipped.
	Dropped
)

// Commit makes the writes in one commit, at most 200, and publishes it as
// #commit. Without writes the commit is empty, but has a new rev. A failed
// commit changes nothing.
func (w *World) Commit(did syntax.DID, writes ...Write) (record.Commit, error) {
	return w.CommitFaulty(did, NoFault, writes...)
}

// CommitFaulty is [World.Commit] with something wrong about what is published.
func (w *World) CommitFaulty(did syntax.DID, fault Fault, writes ...Write) (record.Commit, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a, err := w.account(did)
	if err != nil {
		return record.Commit{}, err
	}
	if a.status != Active {
		return record.Commit{}, fmt.Errorf("%s is %s: %w", did, a.status, ErrNotActive)
	}
	return w.commit(a, fault, writes)
}

// draft is a commit in the making.
type draft struct {
	ops     []record.Op
	events  []*comatproto.SyncSubscribeRepos_RepoOp
	records []block // by op; zero for deletes
	nodes   []block
	root    cid.Cid
	rev     syntax.TID
	time    time.Time
	head    block
}

func (w *World) commit(a *account, fault Fault, writes []Write) (record.Commit, error) {
	d, err := newDraft(a, writes)
	if err != nil {
		return record.Commit{}, err
	}
	tree := &a.tree
	if fault == ForgedSignature {
		scratch := a.tree.Copy()
		tree = &scratch
	}
	if err := d.apply(tree); err != nil {
		return record.Commit{}, fmt.Errorf("apply writes of %s: %w", a.did, err)
	}
	d.time = w.tick()
	d.rev = syntax.NewTIDFromTime(d.time, a.clockID)
	key := a.key
	if fault == ForgedSignature {
		if key, err = deriveKey(w.cfg.Seed, "forger of "+a.name, 0); err != nil {
			return record.Commit{}, err
		}
	}
	if err := d.sign(a.did, key); err != nil {
		return record.Commit{}, fmt.Errorf("sign commit of %s: %w", a.did, err)
	}
	seq, err := w.publish(a, d, fault)
	if err != nil {
		return record.Commit{}, fmt.Errorf("publish commit of %s: %w", a.did, err)
	}
	done := d.done(a, seq)
	if fault != ForgedSignature {
		w.adopt(a, d, writes, seq)
	}
	return done, nil
}

// newDraft checks the writes against the repository, changing nothing yet.
func newDraft(a *account, writes []Write) (*draft, error) {
	if len(writes) > maxWrites {
		return nil, fmt.Errorf("%d writes: %w", len(writes), ErrTooBig)
	}
	d := &draft{ops: make([]record.Op, len(writes)), records: make([]block, len(writes)),
		events: make([]*comatproto.SyncSubscribeRepos_RepoOp, len(writes))}
	paths := make(map[string]bool, len(writes))
	size := 0
	for i, wr := range writes {
		path := wr.path()
		prev, err := a.tree.Get([]byte(path))
		if err != nil {
			return nil, fmt.Errorf("look up %s: %w", path, err)
		}
		if paths[path] {
			return nil, fmt.Errorf("%s is written twice: %w", path, ErrHasRecord)
		}
		paths[path] = true
		b, err := wr.block(prev)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", wr.Action, path, err)
		}
		size += len(b.data)
		d.set(i, a.did, wr, b, prev)
	}
	if size > maxCommitBytes {
		return nil, fmt.Errorf("%d bytes of records: %w", size, ErrTooBig)
	}
	return d, nil
}

// block encodes what is written over prev.
func (wr Write) block(prev *cid.Cid) (block, error) {
	if (wr.Action == record.Create) != (prev == nil) {
		if prev == nil {
			return block{}, ErrNoRecord
		}
		return block{}, ErrHasRecord
	}
	if wr.Action == record.Delete {
		return block{}, nil
	}
	data := wr.Block
	if data == nil {
		var err error
		if data, err = atdata.MarshalCBOR(wr.Value); err != nil {
			return block{}, fmt.Errorf("encode record: %w", err)
		}
	}
	c, err := cborCID(data)
	if err == nil && prev != nil && c == *prev {
		err = ErrUnchanged
	}
	return block{c, data}, err
}

func (d *draft) set(i int, did syntax.DID, wr Write, b block, prev *cid.Cid) {
	op := record.Op{Action: wr.Action, Key: record.Key{DID: did, Collection: wr.Collection, Rkey: wr.Rkey}, CBOR: b.data}
	event := &comatproto.SyncSubscribeRepos_RepoOp{Action: string(wr.Action), Path: wr.path(), Prev: (*lexutil.LexLink)(prev)}
	if b.cid.Defined() {
		op.CID = syntax.CID(b.cid.String())
		event.Cid = (*lexutil.LexLink)(&b.cid)
	}
	d.ops[i], d.events[i], d.records[i] = op, event, b
}

// apply changes the tree and collects the nodes to publish.
func (d *draft) apply(tree *mst.Tree) error {
	for _, e := range d.events {
		var err error
		if e.Cid == nil {
			_, err = tree.Remove([]byte(e.Path))
			if tree.IsEmpty() { // indigo keeps the height of the last key, which would bend the tree
				*tree = mst.NewEmptyTree()
			}
		} else {
			_, err = tree.Insert([]byte(e.Path), cid.Cid(*e.Cid))
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", e.Action, e.Path, err)
		}
	}
	var err error
	d.root, d.nodes, err = diff(context.Background(), tree)
	return err
}

func (d *draft) sign(did syntax.DID, key signingKey) error {
	object := repo.Commit{DID: string(did), Version: repo.ATPROTO_REPO_VERSION, Data: d.root, Rev: string(d.rev)}
	unsigned, err := object.UnsignedBytes()
	if err != nil {
		return err
	}
	if object.Sig, err = key.sign(unsigned); err != nil {
		return err
	}
	var buf bytes.Buffer
	if err := object.MarshalCBOR(&buf); err != nil {
		return err
	}
	c, err := cborCID(buf.Bytes())
	d.head = block{c, buf.Bytes()}
	return err
}

// publish puts the commit's event into the stream.
func (w *World) publish(a *account, d *draft, fault Fault) (int64, error) {
	if fault == Dropped {
		return w.log.skip(a.did), nil
	}
	car, err := encodeCAR(d.head.cid, d.blocks(fault))
	if err != nil {
		return 0, err
	}
	event := &comatproto.SyncSubscribeRepos_Commit{
		Repo: string(a.did), Rev: string(d.rev), Commit: lexutil.LexLink(d.head.cid), Blocks: car,
		Ops: d.events, Blobs: []lexutil.LexLink{}, Time: timestamp(d.time),
	}
	if a.rev != "" {
		since, prev := string(a.rev), lexutil.LexLink(a.data)
		event.Since, event.PrevData = &since, &prev
	}
	if fault == WrongPrevData {
		wrong := lexutil.LexLink(d.head.cid)
		event.PrevData = &wrong
	}
	return w.log.append(a.did, func(seq int64) (*stream.XRPCStreamEvent, error) {
		event.Seq = seq
		return &stream.XRPCStreamEvent{RepoCommit: event}, nil
	})
}

// blocks are those of the event's CAR: commit, tree nodes, records.
func (d *draft) blocks(fault Fault) []block {
	all := append([]block{d.head}, d.nodes...)
	for _, b := range d.records {
		if b.cid.Defined() {
			all = append(all, b)
		}
	}
	if fault != MissingBlock {
		return all
	}
	if last := len(all) - 1; last >= 1+len(d.nodes) {
		missing := all[last].cid
		kept := all[:0:0]
		for _, b := range all {
			if b.cid != missing {
				kept = append(kept, b)
			}
		}
		return kept
	}
	return append(all[:1:1], all[2:]...) // the root is the first node
}

// adopt makes the commit the repository's latest.
func (w *World) adopt(a *account, d *draft, writes []Write, seq int64) {
	a.rev, a.data, a.head, a.commit = d.rev, d.root, d.head.cid, d.head.data
	for i, op := range d.ops {
		b := d.records[i]
		if b.cid.Defined() {
			w.blocks[b.cid] = b.data
		}
		w.journal = append(w.journal, change{seq: seq, did: a.did, key: op.Key, cid: b.cid, barred: writes[i].Barred})
	}
}

// done states the commit as a verifier of its event should; call it before adopt.
func (d *draft) done(a *account, seq int64) record.Commit {
	c := record.Commit{
		Seq: seq, DID: a.did, Rev: d.rev, Since: a.rev, CID: syntax.CID(d.head.cid.String()),
		Data: syntax.CID(d.root.String()), Time: d.time, Ops: d.ops,
	}
	if a.data.Defined() {
		c.PrevData = syntax.CID(a.data.String())
	}
	return c
}

func timestamp(t time.Time) string { return t.Format("2006-01-02T15:04:05.000Z") }

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	block "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	car "github.com/ipld/go-car"

	"github.com/layers-pub/layers-appview/indexer/firehose"
	"github.com/layers-pub/layers-appview/indexer/verify"
	"github.com/layers-pub/layers-appview/internal/directory"
	"github.com/layers-pub/layers-appview/internal/simulate"
)

const collection = syntax.NSID("pub.layers.corpus.corpus")

// stream is a list of commits, with what the bare costs need taken out of each.
type stream struct {
	frames   []firehose.Frame
	commits  []*comatproto.SyncSubscribeRepos_Commit
	parts    []parts
	key      atcrypto.PublicKey
	verifier *verify.Verifier
}

type parts struct {
	unsigned, sig []byte
	blocks        blocks
	data          cid.Cid
	ops           []repo.Operation
	prev          cid.Cid
}

// blocks are a commit's blocks, for package mst.
type blocks map[cid.Cid]block.Block

func (b blocks) Get(_ context.Context, c cid.Cid) (block.Block, error) {
	if found, ok := b[c]; ok {
		return found, nil
	}
	return nil, &ipld.ErrNotFound{Cid: c}
}

// oneAccount is the directory, which answers at once.
type oneAccount struct{ account *identity.Identity }

func (o oneAccount) LookupDID(context.Context, syntax.DID) (*identity.Identity, error) {
	return o.account, nil
}

func (oneAccount) Purge(context.Context, syntax.AtIdentifier) error { return nil }

// makeStream has an account with a K-256 key make n commits of creates, updates and
// deletes, in a repository that holds some records before.
func makeStream(ctx context.Context, k kind, n, records int) (*stream, error) {
	world, err := simulate.NewWorld(simulate.Config{Seed: 1})
	if err != nil {
		return nil, err
	}
	defer world.Close()
	account, key, err := k256Account(ctx, world)
	if err != nil {
		return nil, err
	}
	s := &stream{key: key, verifier: verify.New(oneAccount{account})}
	if err := fill(world, account.DID, records); err != nil {
		return nil, err
	}
	since := world.LastSeq()
	if err := commitMany(world, account.DID, k, n, records); err != nil {
		return nil, err
	}
	return s, s.take(world, since)
}

// k256Account makes accounts until one has a key of the kind.
func k256Account(ctx context.Context, world *simulate.World) (*identity.Identity, atcrypto.PublicKey, error) {
	server := simulate.NewServer(world, simulate.ServerConfig{})
	if err := server.Start("127.0.0.1:0"); err != nil {
		return nil, nil, err
	}
	defer func() { _ = server.Stop() }()
	identities := directory.New(directory.Config{PLCURL: server.URL(), AllowPrivate: true})
	for i := 0; ; i++ {
		did, err := world.CreateAccount(fmt.Sprint("bench", i))
		if err != nil {
			return nil, nil, err
		}
		account, err := identities.LookupDID(ctx, did)
		if err != nil {
			return nil, nil, err
		}
		key, err := account.PublicKey()
		if err != nil {
			return nil, nil, err
		}
		if _, ok := key.(*atcrypto.PublicKeyK256); ok {
			return account, key, nil
		}
	}
}

func rkey(i int) syntax.RecordKey { return syntax.RecordKey(fmt.Sprintf("3l%011d", i)) }

func value(text string) map[string]any {
	return map[string]any{"$type": string(collection), "name": text, "createdAt": "2026-01-01T00:00:00Z"}
}

func fill(world *simulate.World, did syntax.DID, records int) error {
	for i := 0; i < records; {
		var writes []simulate.Write
		for ; len(writes) < 200 && i < records; i++ {
			writes = append(writes, simulate.Create(collection, rkey(i), value("before")))
		}
		if _, err := world.Commit(did, writes...); err != nil {
			return err
		}
	}
	return nil
}

// commitMany makes six creates to two updates and two deletes.
func commitMany(world *simulate.World, did syntax.DID, k kind, n, records int) error {
	random := rand.New(rand.NewPCG(1, 2))
	next, gone := records, map[int]bool{}
	for i := range n {
		touched := map[int]bool{}
		var writes []simulate.Write
		for len(writes) < k.ops {
			old := random.IntN(records)
			switch choice := random.IntN(10); {
			case choice < 6 || gone[old] || touched[old]:
				writes = append(writes, simulate.Create(collection, rkey(next), value("new")))
				next++
			case choice < 8:
				touched[old] = true
				writes = append(writes, simulate.Update(collection, rkey(old), value(fmt.Sprint("changed ", i))))
			default:
				touched[old], gone[old] = true, true
				writes = append(writes, simulate.Delete(collection, rkey(old)))
			}
		}
		if _, err := world.Commit(did, writes...); err != nil {
			return err
		}
	}
	return nil
}

// take decodes the frames after since, and takes the commits apart.
func (s *stream) take(world *simulate.World, since int64) error {
	for {
		frames, err := world.Frames(since, 100)
		if err != nil || len(frames) == 0 {
			return err
		}
		for _, f := range frames {
			since = f.Seq
			frame := firehose.Frame{Data: f.Data, Size: int64(len(f.Data))}
			event, err := frame.Decode()
			if err != nil {
				return err
			}
			p, err := partsOf(event.Commit)
			if err != nil {
				return err
			}
			s.frames, s.commits, s.parts = append(s.frames, frame), append(s.commits, event.Commit), append(s.parts, p)
		}
	}
}

func partsOf(msg *comatproto.SyncSubscribeRepos_Commit) (parts, error) {
	p := parts{blocks: blocks{}, prev: cid.Cid(*msg.PrevData)}
	reader, err := car.NewCarReader(bytes.NewReader(msg.Blocks))
	if err != nil {
		return parts{}, err
	}
	for b, err := reader.Next(); err == nil; b, err = reader.Next() {
		p.blocks[b.Cid()] = b
	}
	head, ok := p.blocks[cid.Cid(msg.Commit)]
	if !ok {
		return parts{}, errors.New("commit without its block")
	}
	var commit repo.Commit
	if err := commit.UnmarshalCBOR(bytes.NewReader(head.RawData())); err != nil {
		return parts{}, err
	}
	p.data, p.sig = commit.Data, commit.Sig
	for _, o := range msg.Ops {
		p.ops = append(p.ops, repo.Operation{Path: o.Path, Value: (*cid.Cid)(o.Cid), Prev: (*cid.Cid)(o.Prev)})
	}
	if p.ops, err = repo.NormalizeOps(p.ops); err != nil {
		return parts{}, err
	}
	p.unsigned, err = commit.UnsignedBytes()
	return p, err
}

func (s *stream) signatures(context.Context) error {
	for _, p := range s.parts {
		if err := s.key.HashAndVerify(p.unsigned, p.sig); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) inversions(ctx context.Context) error {
	for i := range s.parts {
		p := &s.parts[i]
		tree, err := mst.LoadTreeFromStore(ctx, p.blocks, p.data)
		if err != nil {
			return err
		}
		for j := range p.ops {
			if err := repo.InvertOp(tree, &p.ops[j]); err != nil {
				return err
			}
		}
		root, err := tree.RootCID()
		if err != nil {
			return err
		}
		if *root != p.prev {
			return errors.New("the inversion leads elsewhere")
		}
	}
	return nil
}

func follows(syntax.NSID) bool { return true }

func (s *stream) verify(ctx context.Context) error {
	for _, msg := range s.commits {
		if _, err := s.verifier.Commit(ctx, msg, follows); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) decodeAndVerify(ctx context.Context) error {
	for _, frame := range s.frames {
		event, err := frame.Decode()
		if err != nil {
			return err
		}
		if _, err := s.verifier.Commit(ctx, event.Commit, follows); err != nil {
			return err
		}
	}
	return nil
}

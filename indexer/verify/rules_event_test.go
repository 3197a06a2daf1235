package verify_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	lexutil "github.com/bluesky-social/indigo/lex/util"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer/verify"
)

type event = comatproto.SyncSubscribeRepos_Commit

// rule is one sentence of the protocol. holds makes an event that keeps it and
// breaks one that differs in nothing else; both are really signed. Without holds,
// the event is that of one plain commit.
type rule struct {
	holds  func(f *forger) *event
	breaks func(f *forger) *event
	want   verify.Reason
}

// writes are a create, an update and a delete in one commit.
func (f *forger) writes() *draft {
	return f.draft(map[string]string{path("new"): "new", path("base01"): "changed", path("base02"): ""})
}

// altered publishes a commit and changes the event, which is not signed.
func altered(change func(*event)) func(*forger) *event {
	return func(f *forger) *event {
		msg := f.writes().seal()
		change(msg)
		return msg
	}
}

// drafted changes a commit before it is signed.
func drafted(change func(*draft)) func(*forger) *event {
	return func(f *forger) *event {
		d := f.writes()
		change(d)
		return d.seal()
	}
}

func opOn(ops []*comatproto.SyncSubscribeRepos_RepoOp, action string) *comatproto.SyncSubscribeRepos_RepoOp {
	for _, o := range ops {
		if o.Action == action {
			return o
		}
	}
	panic("no such op")
}

var elsewhere = dagCBOR([]byte("\x69elsewhere"))

func link() *lexutil.LexLink { c := lexutil.LexLink(elsewhere.cid); return &c }

func text(s string) *string { return &s }

func tidIn(d time.Duration) string { return string(syntax.NewTIDFromTime(time.Now().Add(d), 0)) }

var envelopeRules = map[string]rule{
	"the event's repo is the signed did":       {breaks: altered(func(m *event) { m.Repo = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa" }), want: verify.Malformed},
	"repo is a DID":                            {breaks: altered(func(m *event) { m.Repo = "amara.example.com" }), want: verify.Malformed},
	"the event's rev is the signed rev":        {breaks: altered(func(m *event) { m.Rev = tidIn(0) }), want: verify.Malformed},
	"the event's commit is the CAR's root":     {breaks: altered(func(m *event) { m.Commit = *link() }), want: verify.Malformed},
	"rev is a TID":                             {breaks: altered(func(m *event) { m.Rev = "yesterday" }), want: verify.Malformed},
	"since is a TID":                           {breaks: altered(func(m *event) { m.Since = text("yesterday") }), want: verify.Malformed},
	"since comes before rev":                   {breaks: altered(func(m *event) { m.Since = &m.Rev }), want: verify.Malformed},
	"prevData without since is no commit":      {breaks: altered(func(m *event) { m.Since = nil }), want: verify.Malformed},
	"since without prevData is a legacy event": {breaks: altered(func(m *event) { m.PrevData = nil }), want: verify.Malformed},
	"time is a datetime":                       {breaks: altered(func(m *event) { m.Time = "now" }), want: verify.Malformed},
	"tooBig belongs to the old protocol":       {breaks: altered(func(m *event) { m.TooBig = true }), want: verify.Malformed},
	"rebase belongs to the old protocol":       {breaks: altered(func(m *event) { m.Rebase = true }), want: verify.Malformed},
	"rev does not lie in the future": {
		holds:  drafted(func(d *draft) { d.commit.Rev = tidIn(4 * time.Minute) }),
		breaks: drafted(func(d *draft) { d.commit.Rev = tidIn(6 * time.Minute) }), want: verify.Future,
	},
	"a first commit leads from the empty tree": {
		holds: func(f *forger) *event {
			f.tree, f.rev = mst.NewEmptyTree(), ""
			return f.draft(map[string]string{path("first"): "first"}).seal()
		},
		breaks: func(f *forger) *event {
			d := f.writes()
			d.since, d.prev = nil, nil
			return d.seal()
		}, want: verify.Tree,
	},
	"200 ops": {
		holds:  func(f *forger) *event { return f.many(200).seal() },
		breaks: func(f *forger) *event { return f.many(201).seal() }, want: verify.Limit,
	},
	"2,000,000 bytes of blocks": {
		holds:  func(f *forger) *event { return f.padded(verify.MaxBlocks) },
		breaks: func(f *forger) *event { return f.padded(verify.MaxBlocks + 1) }, want: verify.Limit,
	},
}

func (f *forger) many(n int) *draft {
	writes := map[string]string{}
	for i := range n {
		writes[path(fmt.Sprintf("many%03d", i))] = "x"
	}
	return f.draft(writes)
}

// padded has blocks of an exact size.
func (f *forger) padded(size int) *event {
	d := f.writes()
	probe := *d
	room := size - len(probe.seal().Blocks) - 3 - 36 // a section's length, and its CID
	d.extra = []block{dagCBOR(make([]byte, room))}
	msg := d.seal()
	require.Len(f.t, msg.Blocks, size)
	return msg
}

var signatureRules = map[string]rule{
	"the account has signed the commit": {breaks: drafted(func(d *draft) { d.f.key = k256(d.f.t) }), want: verify.Signature},
	"a P-256 key signs as well": {
		holds:  func(f *forger) *event { f.rotate(p256(f.t)); return f.writes().seal() },
		breaks: func(f *forger) *event { f.rotate(p256(f.t)); f.key = p256(f.t); return f.writes().seal() }, want: verify.Signature,
	},
	"the key's curve is the signature's": {breaks: drafted(func(d *draft) { d.f.key = p256(d.f.t) }), want: verify.Signature},
	"a K-256 signature has the low S": {breaks: drafted(func(d *draft) {
		sign := d.sign
		d.sign = func(b []byte) []byte {
			return highS(order("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"))(sign(b))
		}
	}), want: verify.Signature},
	"a P-256 signature has the low S": {
		holds: func(f *forger) *event { f.rotate(p256(f.t)); return f.writes().seal() },
		breaks: func(f *forger) *event {
			f.rotate(p256(f.t))
			d := f.writes()
			sign := d.sign
			d.sign = func(b []byte) []byte {
				return highS(order("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"))(sign(b))
			}
			return d.seal()
		}, want: verify.Signature,
	},
	"a signature has 64 bytes": {breaks: drafted(func(d *draft) {
		sign := d.sign
		d.sign = func(b []byte) []byte { return append(sign(b), 0) }
	}), want: verify.Signature},
	"nothing is signed but the whole block": {
		holds:  func(f *forger) *event { return f.withProperty(true) },
		breaks: func(f *forger) *event { return f.withProperty(false) }, want: verify.Signature,
	},
	"the DID exists": {
		breaks: drafted(func(d *draft) { d.f.keys.account.DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"; d.f.keys.cached = nil }), want: verify.Identity,
	},
	"its document has a signing key": {
		breaks: drafted(func(d *draft) {
			d.f.keys.account.Keys = map[string]identity.VerificationMethod{}
			d.f.keys.cached = nil
		}), want: verify.Identity,
	},
	"the signed commit is of version 3": {breaks: drafted(func(d *draft) { d.commit.Version = 2 }), want: verify.Malformed},
	"the signed did is the event's": {breaks: func(f *forger) *event {
		d := f.writes()
		d.commit.DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
		msg := d.seal()
		msg.Repo = string(f.did)
		return msg
	}, want: verify.Malformed},
}

func order(n string) []byte {
	out, err := hex.DecodeString(n)
	if err != nil {
		panic(err)
	}
	return out
}

// withProperty publishes a commit block with a property of a later protocol, which
// the account has signed or somebody on the way has added.
func (f *forger) withProperty(signed bool) *event {
	d := f.writes()
	insert := func(b []byte) []byte { // "later" has its place between data, prev and version
		at := bytes.Index(b, []byte("\x67version"))
		out := slices.Concat(b[:at:at], []byte("\x65later\x01"), b[at:])
		out[0]++
		return out
	}
	if sign := d.sign; signed {
		d.sign = func(unsigned []byte) []byte { return sign(insert(unsigned)) }
	}
	d.block = insert
	return d.seal()
}

var opRules = map[string]rule{
	"prevData is the tree that undoing the ops gives": {breaks: altered(func(m *event) { m.PrevData = link() }), want: verify.Tree},
	"an update's prev is the value before":            {breaks: altered(func(m *event) { opOn(m.Ops, "update").Prev = link() }), want: verify.Tree},
	"a delete's prev is the value before":             {breaks: altered(func(m *event) { opOn(m.Ops, "delete").Prev = link() }), want: verify.Tree},
	"a create's cid is the tree's value":              {breaks: altered(func(m *event) { opOn(m.Ops, "create").Cid = link() }), want: verify.Tree},
	"an update's cid is the tree's value":             {breaks: altered(func(m *event) { opOn(m.Ops, "update").Cid = link() }), want: verify.Tree},
	"every change has its op":                         {breaks: altered(func(m *event) { m.Ops = m.Ops[1:] }), want: verify.Tree},
	"a commit without ops changes nothing": {
		holds:  func(f *forger) *event { return f.draft(nil).seal() },
		breaks: altered(func(m *event) { m.Ops = nil }), want: verify.Tree,
	},
	"every create is shown by the tree": {breaks: altered(func(m *event) {
		m.Ops = append(m.Ops, &comatproto.SyncSubscribeRepos_RepoOp{Action: "create", Path: path("ghost"), Cid: link()})
	}), want: verify.Tree},
	"every update is shown by the tree": {breaks: altered(func(m *event) {
		m.Ops = append(m.Ops, &comatproto.SyncSubscribeRepos_RepoOp{Action: "update", Path: path("base03"), Cid: link(), Prev: m.PrevData})
	}), want: verify.Tree},
	"every delete is shown by the tree": {breaks: altered(func(m *event) {
		m.Ops = append(m.Ops, &comatproto.SyncSubscribeRepos_RepoOp{Action: "delete", Path: path("base03"), Prev: link()})
	}), want: verify.Tree},
	"a delete of nothing is none": {breaks: altered(func(m *event) {
		m.Ops = append(m.Ops, &comatproto.SyncSubscribeRepos_RepoOp{Action: "delete", Path: path("never"), Prev: link()})
	}), want: verify.Tree},
	"an update to the same value is none": {breaks: altered(func(m *event) {
		o := opOn(m.Ops, "update")
		o.Prev = o.Cid
	}), want: verify.Tree},
	"an update is no create": {breaks: altered(func(m *event) { o := opOn(m.Ops, "update"); o.Action, o.Prev = "create", nil }), want: verify.Tree},
	"a path has one op":      {breaks: altered(func(m *event) { m.Ops = append(m.Ops, m.Ops[0]) }), want: verify.Malformed},
	"a path has not two ops": {breaks: altered(func(m *event) {
		m.Ops = append(m.Ops, &comatproto.SyncSubscribeRepos_RepoOp{Action: "delete", Path: path("new"), Prev: link()})
	}), want: verify.Malformed},
	"a create has no prev":      {breaks: altered(func(m *event) { opOn(m.Ops, "create").Prev = link() }), want: verify.Malformed},
	"a create has a cid":        {breaks: altered(func(m *event) { opOn(m.Ops, "create").Cid = nil }), want: verify.Malformed},
	"an update has a prev":      {breaks: altered(func(m *event) { opOn(m.Ops, "update").Prev = nil }), want: verify.Malformed},
	"an update has a cid":       {breaks: altered(func(m *event) { opOn(m.Ops, "update").Cid = nil }), want: verify.Malformed},
	"a delete has a prev":       {breaks: altered(func(m *event) { opOn(m.Ops, "delete").Prev = nil }), want: verify.Malformed},
	"a delete has no cid":       {breaks: altered(func(m *event) { opOn(m.Ops, "delete").Cid = link() }), want: verify.Malformed},
	"an action is one of three": {breaks: altered(func(m *event) { m.Ops[0].Action = "upsert" }), want: verify.Malformed},
	"an op is not null":         {breaks: altered(func(m *event) { m.Ops[0] = nil }), want: verify.Malformed},
	"a path's collection is an NSID": {
		breaks: func(f *forger) *event { return f.draft(map[string]string{"not-an-nsid/a": "a"}).seal() }, want: verify.Malformed,
	},
	"a path's key is a record key": {
		holds:  func(f *forger) *event { return f.draft(map[string]string{path("A-z.0_9:~"): "a"}).seal() },
		breaks: func(f *forger) *event { return f.draft(map[string]string{path("a b"): "a"}).seal() }, want: verify.Malformed,
	},
	"each path's key is a record key": {
		holds:  func(f *forger) *event { return f.draft(map[string]string{path("a"): "a", path("b"): "b"}).seal() },
		breaks: func(f *forger) *event { return f.draft(map[string]string{path("a"): "a", path("b c"): "b"}).seal() }, want: verify.Malformed,
	},
	"a record key is not two dots": {
		holds:  func(f *forger) *event { return f.draft(map[string]string{path("..."): "a"}).seal() },
		breaks: func(f *forger) *event { return f.draft(map[string]string{path(".."): "a"}).seal() }, want: verify.Malformed,
	},
	"a record key has 512 bytes": {
		holds:  func(f *forger) *event { return f.draft(map[string]string{path(strings.Repeat("a", 512)): "a"}).seal() },
		breaks: func(f *forger) *event { return f.draft(map[string]string{path(strings.Repeat("a", 513)): "a"}).seal() }, want: verify.Malformed,
	},
	"a path has two parts": {
		breaks: func(f *forger) *event { return f.draft(map[string]string{path("a/b"): "a"}).seal() }, want: verify.Malformed,
	},
}

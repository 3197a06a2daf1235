// Package record has the words that every other package speaks: a record and
// its name, a change to one, and a verified commit of changes.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Key names a record: the repository, the collection in it, and the record key
// in that. It is the parsed form of an AT-URI whose authority is a DID.
type Key struct {
	DID        syntax.DID
	Collection syntax.NSID
	Rkey       syntax.RecordKey
}

// URI is the key in its AT-URI form, at://did/collection/rkey.
func (k Key) URI() syntax.ATURI { return syntax.ATURI(k.String()) }

// String is the AT-URI as plain text.
func (k Key) String() string {
	return "at://" + string(k.DID) + "/" + string(k.Collection) + "/" + string(k.Rkey)
}

// Path is the key inside its repository, collection/rkey, as the repository's tree has it.
func (k Key) Path() string { return string(k.Collection) + "/" + string(k.Rkey) }

// ErrNotRecord is returned by [ParseKey] for an AT-URI that names no single
// record, or names its repository by handle: resolve the handle first.
var ErrNotRecord = errors.New("AT-URI does not name a record in a repository given by DID")

// ParseKey splits an AT-URI that names one record.
func ParseKey(uri syntax.ATURI) (Key, error) {
	did, err := uri.Authority().AsDID()
	if err != nil || uri.Collection() == "" || uri.RecordKey() == "" {
		return Key{}, fmt.Errorf("%q: %w", uri, ErrNotRecord)
	}
	return Key{DID: did, Collection: uri.Collection(), Rkey: uri.RecordKey()}, nil
}

// Action is what a commit does to one record.
type Action string

// The three actions of com.atproto.sync.subscribeRepos#repoOp.
const (
	Create Action = "create"
	Update Action = "update"
	Delete Action = "delete"
)

// Op is one change to one record, as a verified commit states it.
type Op struct {
	Action Action
	Key    Key
	CID    syntax.CID // empty for a delete
	CBOR   []byte     // the record's DAG-CBOR block; nil for a delete
}

// Commit is a commit whose signature and tree have been verified. Ops holds the
// changes to followed collections alone; the commit may have changed others.
type Commit struct {
	Seq      int64 // the event's sequence number on the host it came from
	DID      syntax.DID
	Rev      syntax.TID
	Since    syntax.TID // rev of the commit before; empty for a repository's first
	CID      syntax.CID // of the signed commit block
	Data     syntax.CID // root of the repository's tree after the commit
	PrevData syntax.CID // root of the tree before it; empty where the event does not say
	Time     time.Time  // when the host emitted the event
	Ops      []Op
}

// Ref is a reference from a record to another.
type Ref struct {
	// Path leads to the reference in the record's value, with [] for "any
	// element": annotations[].ontologyTypeRef.
	Path   string
	Target syntax.ATURI
}

// Link is a reference from a record to something that is no record: a DID or a URI.
type Link struct {
	Path   string // as in [Ref]
	Target string // as the record has it
}

// Record is a record as it is stored and served.
type Record struct {
	Key       Key
	CID       syntax.CID
	Rev       syntax.TID
	Value     json.RawMessage // the record verbatim, in the data model's JSON form
	CreatedAt time.Time       // as the record claims; zero where it does not
	IndexedAt time.Time       // when this index first saw the record
	Version   int64           // grows with every change in the index; orders changes across records
}

// Annotation is one annotation of an annotation layer, flattened for queries.
type Annotation struct {
	Layer      Key
	Ordinal    int // position in the layer's array
	UUID       string
	Label      string
	Value      string
	Text       string
	AnchorKind string // which member of the anchor is set: textSpan, tokenRef, ...; empty without one
	ByteStart  *int64 // of the text span, where the anchor has one
	ByteEnd    *int64
	TokenIndex *int64
	Confidence *int64 // 0-1000
}

// Target is a projection that follows PostgreSQL.
type Target string

// The projections. Tables are the annotations inside PostgreSQL itself; Relations is the
// graph there, and FullText what it searches by, where it has to.
const (
	Tables    Target = "tables"
	Search    Target = "search"
	Graph     Target = "graph"
	Relations Target = "relations"
	FullText  Target = "fulltext"
)

// Pending names a record that a projection has yet to catch up with.
type Pending struct {
	ID      int64 // of the outbox row
	Key     Key
	Version int64 // of the change that put it there
}

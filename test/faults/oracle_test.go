package faults

import (
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/simulate"
)

// key names a record.
type key struct {
	did        syntax.DID
	collection syntax.NSID
	rkey       syntax.RecordKey
}

func (k key) String() string { return fmt.Sprintf("at://%s/%s/%s", k.did, k.collection, k.rkey) }

// entry is one line of what has been done to the network, as its author knows it.
type entry struct {
	seq     int64 // of the event that told of it
	key     key   // without collection for a change of the account
	cid     string
	refused bool            // no index may have it
	gone    bool            // a delete
	status  simulate.Status // of the account
}

// oracle knows what an index must hold. It is told what is written by whoever
// writes, and reads nothing back.
type oracle struct {
	entries  []entry
	contents map[string]map[string]any // the values of records, by CID
}

// ours tells the collections that an index with the default settings follows.
func ours(collection syntax.NSID) bool { return strings.HasPrefix(string(collection), "pub.layers.") }

// state is what the oracle expects of an index.
type state struct {
	records map[key]string // CID of each record that must be seen, and no other may be
	hidden  map[key]string // those of accounts that are inactive, which may be stored but not be seen
	status  map[syntax.DID]simulate.Status
	letters map[key]string // CID of each record that is refused, in its present version
}

// at is the state after an event; every entry is one of an event's, and in order.
func (o *oracle) at(seq int64) state {
	s := state{records: map[key]string{}, hidden: map[key]string{}, status: map[syntax.DID]simulate.Status{}, letters: map[key]string{}}
	for _, e := range o.entries {
		switch {
		case e.seq > seq:
		case e.key.collection == "":
			s.status[e.key.did] = e.status
		case !ours(e.key.collection):
		case e.gone, e.refused:
			delete(s.records, e.key)
			delete(s.letters, e.key)
			if e.refused {
				s.letters[e.key] = e.cid
			}
		default:
			s.records[e.key] = e.cid
			delete(s.letters, e.key)
		}
	}
	for k, cid := range s.records {
		if status := s.status[k.did]; status != simulate.Active {
			delete(s.records, k)
			if status != simulate.Deleted {
				s.hidden[k] = cid
			}
		}
	}
	return s
}

func (o *oracle) now() state { return o.at(1 << 62) }

// of is the part of the state that concerns some repositories.
func (s state) of(wanted func(syntax.DID) bool) state {
	part := state{records: map[key]string{}, hidden: map[key]string{}, status: s.status, letters: map[key]string{}}
	for from, to := range map[*map[key]string]map[key]string{&s.records: part.records, &s.hidden: part.hidden, &s.letters: part.letters} {
		for k, cid := range *from {
			if wanted(k.did) {
				to[k] = cid
			}
		}
	}
	return part
}

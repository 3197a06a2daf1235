package reconcile

import (
	"fmt"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Kind says what is wrong.
type Kind string

// The kinds of differences.
const (
	Missing     Kind = "missing"     // the projection lacks the record
	Stale       Kind = "stale"       // it has an older version
	Ahead       Kind = "ahead"       // it has a version that PostgreSQL has never given out, or lost when it was restored
	Extra       Kind = "extra"       // it has what is not, or not to be shown, in PostgreSQL
	Annotations Kind = "annotations" // the table's rows are not the layer's annotations
	Damaged     Kind = "damaged"     // the value does not give the record's CID, or breaks its lexicon
	References  Kind = "references"  // a reference of the value is not in the table of references
)

// Difference is one record about which two stores do not agree.
type Difference struct {
	Target    record.Target // empty: PostgreSQL itself
	Kind      Kind
	Key       record.Key
	Want, Got int64  // versions, 0 where there is none
	Detail    string // in words, where versions do not tell
	// InFlight is true where the target's outbox has rows, so that the difference
	// may be one that is being dealt with.
	InFlight bool
}

// String is the difference on one line.
func (d Difference) String() string {
	where := string(d.Target)
	if where == "" {
		where = "postgresql"
	}
	line := fmt.Sprintf("%s\t%s\t%s\twant version %d, got %d", where, d.Kind, d.Key, d.Want, d.Got)
	if d.Detail != "" {
		line = fmt.Sprintf("%s\t%s\t%s\t%s", where, d.Kind, d.Key, d.Detail)
	}
	if d.InFlight {
		line += "\tin flight"
	}
	return line
}

// maxListed bounds the differences that a report lists for each comparison.
const maxListed = 10_000

// Report is what a comparison found.
type Report struct {
	Compared    map[record.Target]int64 // records of PostgreSQL that were compared
	Examined    int64                   // records whose values were read
	Differences []Difference
	Unlisted    int64 // differences beyond those that are listed
	Enqueued    int64 // records, or of very many the collections, that were enqueued for repair
}

// Real counts the differences that nothing is under way to settle.
func (r Report) Real() int64 {
	n := r.Unlisted
	for _, d := range r.Differences {
		if !d.InFlight {
			n++
		}
	}
	return n
}

// Clean tells whether nothing differs, in flight or not.
func (r Report) Clean() bool { return len(r.Differences) == 0 && r.Unlisted == 0 }

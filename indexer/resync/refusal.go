package resync

import (
	"errors"
	"fmt"
)

// Reason classes what is wrong with a repository that was fetched.
type Reason string

// The reasons for which a fetched repository is refused.
const (
	Truncated Reason = "truncated" // the CAR ends inside of a section
	Malformed Reason = "malformed" // the CAR or one of its blocks does not parse
	TooLarge  Reason = "too large" // more than one of the [Limits] allows
	Missing   Reason = "missing"   // a block that is referred to did not come
	Altered   Reason = "altered"   // a block does not have the content that its CID names
	Tree      Reason = "tree"      // the nodes are no valid tree
	Commit    Reason = "commit"    // the commit does not hold: see the verify.Error inside
	Stale     Reason = "stale"     // the commit is older than one that the stream has shown
)

// Refusal says why a fetched repository is not taken. Another host may do better.
type Refusal struct {
	Reason Reason
	Err    error
}

func (r *Refusal) Error() string { return string(r.Reason) + ": " + r.Err.Error() }

// Unwrap returns what lies behind the refusal.
func (r *Refusal) Unwrap() error { return r.Err }

func refuse(reason Reason, format string, args ...any) error {
	return &Refusal{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// IsRefusal tells content that does not hold from a failure to get or to store it.
func IsRefusal(err error) (*Refusal, bool) {
	var refusal *Refusal
	ok := errors.As(err, &refusal)
	return refusal, ok
}

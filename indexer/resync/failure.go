package resync

import (
	"errors"
	"fmt"
	"time"
)

// Class says what became of an attempt to fetch a repository from a host.
type Class string

// The classes of failures. The first four are the host's word on the account.
const (
	NotFound    Class = "not found"
	Deactivated Class = "deactivated"
	TakenDown   Class = "taken down"
	Suspended   Class = "suspended"
	Throttled   Class = "throttled"    // the host asks to be left alone
	Closed      Class = "closed"       // it was not asked, since it throttles or fails
	Server      Class = "server error" // or an answer that makes no sense
	Network     Class = "network"      // no answer, or one that stopped
	Refused     Class = "refused"      // the content: see the [Refusal] inside
	Identity    Class = "identity"     // no host, or no key, is known for the account
)

// Failure is an attempt that came to nothing, at one host.
type Failure struct {
	Class Class
	Host  string
	Until time.Time // when to come back, of Throttled and Closed
	Err   error
}

func (f *Failure) Error() string { return fmt.Sprintf("%s: %s: %v", f.Host, f.Class, f.Err) }

// Unwrap returns what lies behind the failure.
func (f *Failure) Unwrap() error { return f.Err }

// inactive tells whether the account's host says that the account is not active.
func (f *Failure) inactive() bool {
	return f.Class == Deactivated || f.Class == TakenDown || f.Class == Suspended
}

// patient tells whether nobody is to blame: it is only not the time yet.
func (f *Failure) patient() bool { return f.Class == Throttled || f.Class == Closed }

func asFailure(err error) (*Failure, bool) {
	var failure *Failure
	ok := errors.As(err, &failure)
	return failure, ok
}

type errText string

func (e errText) Error() string { return string(e) }

// Package resync fetches repositories whole where following their commits is not
// enough: it verifies what it fetches, compares it with the store, and writes the
// difference.
package resync

import (
	"context"
	"errors"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/store"
)

// Fetched is the commit at which a repository was fetched whole.
type Fetched struct {
	Rev       syntax.TID
	CommitCID syntax.CID
	Data      syntax.CID // root of the tree
	PDS       string     // as the account's DID document has it; empty if not known
}

// ErrDesynchronized says that a fetched repository is desynchronized again already:
// what was fetched is older than what the stream has shown, its events do not
// continue what was fetched, there were too many of them to be held, or the account
// was deleted meanwhile. It has to be fetched anew, after a wait as for any failure.
var ErrDesynchronized = errors.New("the repository is desynchronized again")

// Line is what a fetch asks of the line of events. A repository's fetch is Begin,
// any number of Writes, and then one of Finish, Abandon and Purge; after an error
// of any of these, Abandon. None of them may be called for a repository by two
// goroutines at once. All methods wait while PostgreSQL does not answer.
type Line interface {
	// Begin holds the repository's events back from now on, and returns what was known
	// of it at that point of the stream: zero but for the DID, where it was not
	// followed. What is fetched afterwards must not be older than its Seen.
	Begin(ctx context.Context, did syntax.DID) (store.Repo, error)
	// Status notes what those who may be believed have answered, when they were asked
	// at that time after Begin, on whether the account is active ("active") or why it
	// is not. It counts like an #account event at this place of the stream: later ones
	// go beyond it. false says that one has come since Begin, which counts instead.
	// The fetch is still to be ended.
	Status(ctx context.Context, did syntax.DID, status string, asked time.Time) (bool, error)
	// Write applies a part of the difference: changes with Resync set, and letters for
	// records that are invalid. It waits while the projections are too far behind.
	Write(ctx context.Context, changes []store.Change, letters []store.DeadLetter) error
	// Finish says that the index now has the repository as it is at a commit. The
	// events that were held are applied after it.
	Finish(ctx context.Context, did syntax.DID, to Fetched) error
	// Abandon ends the fetch without a result. If nothing was written, the
	// repository is as it was before, and the events that were held are applied;
	// otherwise it has to be fetched anew. It does nothing for a repository that is
	// not being fetched.
	Abandon(ctx context.Context, did syntax.DID, reason string) error
	// Purge ends the fetch of a deleted account's repository of which every record
	// was removed with Write. Where the account has come back meanwhile, it is as
	// Abandon.
	Purge(ctx context.Context, did syntax.DID) error
}

package simulate

import (
	"encoding/base32"
	"fmt"
	"strings"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/bluesky-social/indigo/cmd/relay/stream"
	"github.com/ipfs/go-cid"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Status is an account's state as #account events and getRepoStatus spell it;
// Active is spelled by leaving it out.
type Status string

// The states of an account.
const (
	Active      Status = ""
	Deactivated Status = "deactivated"
	Suspended   Status = "suspended"
	TakenDown   Status = "takendown"
	Deleted     Status = "deleted"
)

// handleDomain is where account names live; .test never resolves in the DNS.
const handleDomain = ".sim.test"

// account is an account with its repository. The world's mutex guards it.
type account struct {
	name       string
	did        syntax.DID
	handle     syntax.Handle
	status     Status
	key        signingKey
	generation int // of the key
	clockID    uint

	tree   mst.Tree
	data   cid.Cid // root of tree as of the latest commit; undefined before the first
	rev    syntax.TID
	head   cid.Cid // the latest commit's block
	commit []byte
}

// CreateAccount makes an account and publishes what a PDS does for it: #identity,
// #account, an empty first #commit, and #sync. name is the handle's first label.
func (w *World) CreateAccount(name string) (syntax.DID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	handle, err := syntax.ParseHandle(name + handleDomain)
	if err != nil {
		return "", fmt.Errorf("account name %q: %w", name, err)
	}
	sum := digest("did", w.cfg.Seed, name)
	did := syntax.DID("did:plc:" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:15])))
	if _, taken := w.handles[handle]; taken || w.accounts[did] != nil {
		return "", fmt.Errorf("%s: %w", name, ErrNameTaken)
	}
	key, err := deriveKey(w.cfg.Seed, name, 0)
	if err != nil {
		return "", err
	}
	a := &account{
		name: name, did: did, handle: handle, key: key, tree: mst.NewEmptyTree(),
		clockID: uint(sum[20]) | uint(sum[21]&3)<<8,
	}
	w.accounts[did] = a
	w.handles[handle] = did
	w.order = append(w.order, did)
	if err := w.emitIdentity(a); err != nil {
		return "", err
	}
	if err := w.setStatus(a, Active); err != nil {
		return "", err
	}
	if _, err := w.commit(a, NoFault, nil); err != nil {
		return "", err
	}
	return did, w.emitSync(a)
}

// Handle is the account's present handle.
func (w *World) Handle(did syntax.DID) (syntax.Handle, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a, err := w.account(did)
	if err != nil {
		return "", err
	}
	return a.handle, nil
}

// SetStatus changes an account's state and publishes it: #account, and #identity
// and #sync after it where a deactivated account becomes active again. Deleting
// is final, and purges the account's earlier frames unless [Config] keeps them.
func (w *World) SetStatus(did syntax.DID, status Status) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	a, err := w.account(did)
	if err != nil {
		return err
	}
	was := a.status
	if was == Deleted {
		return fmt.Errorf("%s: %w", did, ErrNoAccount)
	}
	if status == Deleted && !w.cfg.KeepDeleted {
		w.log.purge(did)
	}
	if err := w.setStatus(a, status); err != nil {
		return err
	}
	if status != Active || was != Deactivated {
		return nil
	}
	if err := w.emitIdentity(a); err != nil {
		return err
	}
	return w.emitSync(a)
}

func (w *World) setStatus(a *account, status Status) error {
	a.status = status
	event := &comatproto.SyncSubscribeRepos_Account{Did: string(a.did), Active: status == Active}
	if status != Active {
		text := string(status)
		event.Status = &text
	}
	seq, err := w.log.append(a.did, func(seq int64) (*stream.XRPCStreamEvent, error) {
		event.Seq, event.Time = seq, timestamp(w.tick())
		return &stream.XRPCStreamEvent{RepoAccount: event}, nil
	})
	w.journal = append(w.journal, change{seq: seq, did: a.did, status: status})
	return err
}

// ChangeHandle gives the account the handle of another name and publishes #identity.
func (w *World) ChangeHandle(did syntax.DID, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	a, err := w.account(did)
	if err != nil {
		return err
	}
	handle, err := syntax.ParseHandle(name + handleDomain)
	if err != nil {
		return fmt.Errorf("account name %q: %w", name, err)
	}
	if _, taken := w.handles[handle]; taken {
		return fmt.Errorf("%s: %w", handle, ErrNameTaken)
	}
	delete(w.handles, a.handle)
	w.handles[handle] = did
	a.handle = handle
	return w.emitIdentity(a)
}

// RotateKey puts a new signing key into the account's DID document and publishes
// #identity. The repository's present commit stays signed by the old key until
// the next commit, as on a real PDS.
func (w *World) RotateKey(did syntax.DID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	a, err := w.account(did)
	if err != nil {
		return err
	}
	key, err := deriveKey(w.cfg.Seed, a.name, a.generation+1)
	if err != nil {
		return err
	}
	a.key = key
	a.generation++
	return w.emitIdentity(a)
}

// Sync publishes #sync for the repository as it is. Together with dropped commits
// it is how a host announces a state that the stream does not lead to.
func (w *World) Sync(did syntax.DID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	a, err := w.account(did)
	if err != nil {
		return err
	}
	return w.emitSync(a)
}

func (w *World) emitIdentity(a *account) error {
	handle := string(a.handle)
	_, err := w.log.append(a.did, func(seq int64) (*stream.XRPCStreamEvent, error) {
		return &stream.XRPCStreamEvent{RepoIdentity: &comatproto.SyncSubscribeRepos_Identity{
			Did: string(a.did), Handle: &handle, Seq: seq, Time: timestamp(w.tick()),
		}}, nil
	})
	return err
}

func (w *World) emitSync(a *account) error {
	_, err := w.log.append(a.did, func(seq int64) (*stream.XRPCStreamEvent, error) {
		car, err := encodeCAR(a.head, []block{{a.head, a.commit}})
		if err != nil {
			return nil, err
		}
		return &stream.XRPCStreamEvent{RepoSync: &comatproto.SyncSubscribeRepos_Sync{
			Did: string(a.did), Rev: string(a.rev), Blocks: car, Seq: seq, Time: timestamp(w.tick()),
		}}, nil
	})
	return err
}

func keyOf(did syntax.DID, path string) record.Key {
	collection, rkey, _ := strings.Cut(path, "/")
	return record.Key{DID: did, Collection: syntax.NSID(collection), Rkey: syntax.RecordKey(rkey)}
}

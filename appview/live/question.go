package live

import (
	"context"
	"strconv"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/store"
)

// Question is what a client wants to follow.
type Question struct {
	// Events of accounts pass the filters of collections and targets: they say that all
	// records of a repository are gone, or back.
	collections map[syntax.NSID]bool // nil: of all
	repos       map[syntax.DID]bool  // nil: of all
	targets     map[int64]bool       // nil: whatever they refer to
	cursor      *int64               // nil: from now on
	values      bool
}

// Params are the parameters by which events are chosen, the same for both interfaces.
func Params() []catalog.Param {
	least, longest := int64(0), 8192
	return []catalog.Param{
		{Name: "collection", Type: catalog.String, Format: "nsid", Repeated: true, Description: "Only events of records of these collections, and those of accounts."},
		{Name: "cursor", Type: catalog.Integer, Minimum: &least, Description: "The events behind this one, from the cursor of an event. Without it, those from now on."},
		{Name: "include", Type: catalog.String, Enum: []string{"none", "value"}, Default: "none", Description: "value: with the record, if it is still the one of the event and has no more than 256 KiB."},
		{Name: "repo", Type: catalog.String, Format: "at-identifier", Repeated: true, Description: "Only events of these repositories, by DID or handle."},
		{Name: "target", Type: catalog.String, MaxLength: &longest, Repeated: true, Description: "Only events of records that refer to one of these AT-URIs, DIDs or web addresses, or did until then; and those of accounts."},
	}
}

// Ask makes a question of a request's parameters.
func (s *Service) Ask(ctx context.Context, args *xrpc.Arguments) (Question, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	var q Question
	for _, name := range []string{"collection", "repo", "target"} {
		if n := len(args.Texts(name)); n > mostNamed {
			return q, xrpc.InvalidRequest("parameter %q: at most %d, got %d", name, mostNamed, n)
		}
	}
	for _, nsid := range args.Texts("collection") {
		put(&q.collections, syntax.NSID(nsid))
	}
	for _, repo := range args.Texts("repo") {
		did, err := s.names.DID(ctx, "repo", syntax.AtIdentifier(repo))
		if err != nil {
			return q, err
		}
		put(&q.repos, did)
	}
	for _, target := range args.Texts("target") {
		named, err := s.names.Names(ctx, "target", target)
		if err != nil {
			return q, err
		}
		for _, name := range named {
			put(&q.targets, store.TargetHash(name))
		}
	}
	include, _ := args.Text("include")
	q.values = include == "value"
	if cursor, ok := args.Text("cursor"); ok {
		return q, q.after(cursor)
	}
	return q, nil
}

func (q *Question) after(cursor string) error {
	n, err := strconv.ParseInt(cursor, 10, 64)
	if err != nil || n < 0 {
		return xrpc.InvalidRequest("parameter %q: expected the cursor of an event, got %s", "cursor", xrpc.Quote(cursor))
	}
	q.cursor = &n
	return nil
}

func put[K comparable](set *map[K]bool, key K) {
	if *set == nil {
		*set = map[K]bool{}
	}
	(*set)[key] = true
}

// wants tells whether an event is among what is asked for.
func (q *Question) wants(e *store.Event) bool {
	if q.repos != nil && !q.repos[e.Key.DID] {
		return false
	}
	if e.OfAccount() {
		return true
	}
	if q.collections != nil && !q.collections[e.Key.Collection] {
		return false
	}
	if q.targets == nil {
		return true
	}
	for _, hash := range e.Targets {
		if q.targets[hash] {
			return true
		}
	}
	return false
}

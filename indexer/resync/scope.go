package resync

import (
	"slices"
	"sort"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// scope is the part of every tree that is of interest: the key ranges of the
// followed collections, in order and apart from one another.
type scope []span

// span are the keys from one on, up to another.
type span struct{ from, to string }

// newScope takes NSIDs, and patterns like app.bsky.* for every collection below.
func newScope(follow []string) scope {
	var s scope
	for _, name := range follow {
		if prefix, ok := strings.CutSuffix(name, "*"); ok {
			s = append(s, span{prefix, prefix[:len(prefix)-1] + "/"}) // '/' is the byte after '.'
		} else {
			s = append(s, span{name + "/", name + "0"}) // '0' is the byte after '/'
		}
	}
	slices.SortFunc(s, func(a, b span) int { return strings.Compare(a.from, b.from) })
	merged := s[:0]
	for _, next := range s {
		if last := len(merged) - 1; last >= 0 && next.from <= merged[last].to {
			merged[last].to = max(merged[last].to, next.to)
			continue
		}
		merged = append(merged, next)
	}
	return merged
}

// contains tells whether a key is of interest.
func (s scope) contains(key string) bool {
	at := sort.Search(len(s), func(i int) bool { return s[i].to > key })
	return at < len(s) && s[at].from <= key
}

// meets tells whether keys of interest may lie between two others; nil is no bound.
func (s scope) meets(after, before []byte) bool {
	at := sort.Search(len(s), func(i int) bool { return s[i].to > string(after) })
	return at < len(s) && (before == nil || s[at].from < string(before))
}

// collections picks those of interest, in the order of their keys in a tree.
func (s scope) collections(all []syntax.NSID) []syntax.NSID {
	picked := slices.DeleteFunc(slices.Clone(all), func(c syntax.NSID) bool { return !s.contains(string(c) + "/") })
	slices.SortFunc(picked, func(a, b syntax.NSID) int { return strings.Compare(string(a)+"/", string(b)+"/") })
	return picked
}

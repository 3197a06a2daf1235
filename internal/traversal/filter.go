package traversal

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// complete checks a filter and sets its defaults.
func (f Filter) complete() (Filter, error) {
	switch f.Direction {
	case "":
		f.Direction = Both
	case In, Out, Both:
	default:
		return f, invalid("direction", "%q is not one of in, out, both", f.Direction)
	}
	for _, t := range f.Types {
		if !slices.Contains(EdgeTypes, t) {
			return f, invalid("edge_type", "%q is not one of %v", t, EdgeTypes)
		}
	}
	f.Types = slices.Compact(slices.Sorted(slices.Values(f.Types)))
	if len(f.Types) == 0 {
		f.Types = EdgeTypes
	}
	if f.Collection != "" {
		if _, err := syntax.ParseNSID(string(f.Collection)); err != nil {
			return f, invalid("type", "%q is not the NSID of a collection", f.Collection)
		}
	}
	return f, nil
}

// within gives a number its default and checks that it is from 1 to a highest one.
func within(parameter string, n, standard, high int) (int, error) {
	if n == 0 {
		n = standard
	}
	if n < 1 || n > high {
		return 0, invalid(parameter, "is to be from 1 to %d, not %d", high, n)
	}
	return n, nil
}

// check refuses what names no node.
func (id ID) check(parameter string) error {
	switch {
	case id.Kind == Knowledge && id.Identifier == "":
		return invalid(parameter, "names no entry of a knowledge base")
	case id.Kind != Knowledge && id.URI == "":
		return invalid(parameter, "is missing")
	case strings.ContainsRune(id.URI, 0) || !utf8.ValidString(id.Name()):
		return invalid(parameter, "is no URI")
	case len(id.Name()) > maxName:
		return invalid(parameter, "is longer than %d bytes", maxName)
	}
	return nil
}

const maxName = 9000 // bytes; an AT-URI has up to 8 KB

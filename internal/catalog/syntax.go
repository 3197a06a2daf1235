package catalog

import (
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// The protocol's parsers are regular expressions that take microseconds for each
// AT-URI, more than all the rest of a record. The short cuts here recognise what is
// surely valid in its usual form; whatever they do not, the parsers decide.

const usualAuthority = "at://did:plc:"

// isUsualURI recognises at://did:plc:.../collection/rkey with a collection that has
// a lexicon.
func (c *Catalog) isUsualURI(text string) bool {
	rest, ok := strings.CutPrefix(text, usualAuthority)
	const id = 24 // base32 characters of a did:plc
	if !ok || len(rest) <= id || rest[id] != '/' {
		return false
	}
	for _, b := range []byte(rest[:id]) {
		if (b < 'a' || b > 'z') && (b < '2' || b > '7') {
			return false
		}
	}
	collection, rkey, ok := strings.Cut(rest[id+1:], "/")
	if !ok || !isRecordKey(rkey) {
		return false
	}
	_, ok = c.collections[syntax.NSID(collection)]
	return ok
}

// isRecordKey is the syntax of record keys (https://atproto.com/specs/record-key).
func isRecordKey(text string) bool {
	for _, b := range []byte(text) {
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		case b == '_', b == '~', b == '.', b == ':', b == '-':
		default:
			return false
		}
	}
	return 0 < len(text) && len(text) <= 512 && text != "." && text != ".."
}

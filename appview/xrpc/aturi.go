package xrpc

import (
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// validURI checks an AT-URI. Nearly all are of plain characters, for which this is
// much faster than the regular expressions that syntax.ParseATURI runs, half of
// what a get would cost here otherwise. That one decides about all others.
func validURI(text string) bool {
	if rest, ok := strings.CutPrefix(text, "at://"); ok {
		authority, path, _ := strings.Cut(rest, "/")
		collection, rkey, _ := strings.Cut(path, "/")
		if plainNSID(collection) && plainRecordKey(rkey) {
			_, err := syntax.ParseAtIdentifier(authority)
			return err == nil
		}
	}
	_, err := syntax.ParseATURI(text)
	return err == nil
}

// plainNSID tells of three or more segments of letters and digits that they are an
// NSID. It is false for some NSIDs too, such as those with hyphens.
func plainNSID(text string) bool {
	if len(text) > 317 || !letter(text) {
		return false
	}
	segments := 1
	for {
		segment, rest, more := strings.Cut(text, ".")
		if segment == "" || len(segment) > 63 {
			return false
		}
		for _, c := range []byte(segment) {
			if !alphanumeric(c) {
				return false
			}
		}
		if !more {
			return segments >= 3 && letter(segment)
		}
		text = rest
		segments++
	}
}

// plainRecordKey tells of a text that it is a record key.
func plainRecordKey(text string) bool {
	if text == "" || len(text) > 512 || text == "." || text == ".." {
		return false
	}
	for _, c := range []byte(text) {
		if !alphanumeric(c) && c != '_' && c != '~' && c != '.' && c != ':' && c != '-' {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func letter(text string) bool { return text != "" && alphanumeric(text[0]) && text[0] > '9' }

// SplitURI takes a valid AT-URI apart; collection and rkey are empty if it has none.
func SplitURI(uri syntax.ATURI) (repo syntax.AtIdentifier, collection syntax.NSID, rkey syntax.RecordKey) {
	authority, path, _ := strings.Cut(strings.TrimPrefix(string(uri), "at://"), "/")
	c, r, _ := strings.Cut(path, "/")
	return syntax.AtIdentifier(authority), syntax.NSID(c), syntax.RecordKey(r)
}

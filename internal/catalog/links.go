package catalog

import (
	"strings"

	"github.com/layers-pub/layers-appview/internal/record"
)

// links collects what a record names that is no record, each path and target once.
type links struct {
	list []record.Link
	seen map[record.Link]struct{}
}

// add adds a string of the given format, if that is one of a DID or a URI. It keeps
// nothing of the block.
func (l *links) add(format string, path []byte, target string) {
	switch format {
	case "did", "uri":
	case "at-identifier":
		if !strings.HasPrefix(target, "did:") {
			return // a handle may pass to somebody else
		}
	default:
		return
	}
	link := record.Link{Path: strings.TrimPrefix(string(path), "."), Target: target}
	if _, twice := l.seen[link]; twice {
		return
	}
	if l.seen == nil {
		l.seen = map[record.Link]struct{}{}
	}
	link.Target = strings.Clone(target)
	l.seen[link] = struct{}{}
	l.list = append(l.list, link)
}

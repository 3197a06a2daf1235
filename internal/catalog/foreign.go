package catalog

import (
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
)

// looseReferences finds the references of a record that has no lexicon: every
// string in it that is an AT-URI with a collection.
func (s *scanner) looseReferences() []record.Ref {
	w := looseWalk{reader: reader{text: s.text}}
	w.value()
	return w.refs.list
}

type looseWalk struct {
	reader
	path []byte
	refs references
}

func (w *looseWalk) value() {
	depth := len(w.path)
	switch w.major() {
	case majorText:
		w.text()
	case majorArray:
		w.path = append(w.path, "[]"...)
		for range w.container() {
			w.value()
		}
	case majorMap:
		for range w.container() {
			w.path = append(w.path, segment(w.string())...)
			w.value()
			w.path = w.path[:depth]
		}
	default:
		w.skip()
	}
	w.path = w.path[:depth]
}

func (w *looseWalk) text() {
	v := w.string()
	if !strings.HasPrefix(v, "at://") || w.refs.validFor(nil, w.path, v) {
		return
	}
	if uri, err := syntax.ParseATURI(v); err == nil && uri.Collection() != "" {
		w.refs.add(nil, w.path, uri)
	}
}

package project

import "github.com/layers-pub/layers-appview/internal/query"

// fields adds an object's properties that queries can ask for by name: those that
// are in no list of objects, where a record has at most one thing at a path.
func (s *shape) fields(into []query.Field, prefix string) []query.Field {
	for _, p := range s.props {
		inner := p.element()
		switch {
		case !p.mapped:
		case inner.compared() != 0:
			into = append(into, query.Field{Path: prefix + p.name, Kind: inner.compared()})
		case p.kind == object:
			into = p.fields(into, prefix+p.name+".")
		}
	}
	return into
}

// compared is how a value's field is looked at; 0 if it is not by itself.
func (s *shape) compared() query.Kind {
	switch {
	case collapsed(s.def), s.kind == link, s.kind == text && s.form() == term:
		return query.Term
	case s.kind == text:
		return query.Text
	case s.kind == integer:
		return query.Number
	case s.kind == boolean:
		return query.Flag
	default:
		return 0
	}
}

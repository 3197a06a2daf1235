package query

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Passage is a text of a record, and the path to it: annotations[3].text.
type Passage struct {
	Path string `json:"path"`
	Text string `json:"text"`
}

// Highlight is a place where a record has what was asked for. Offsets count from the
// beginning of the whole string at Path, in bytes of UTF-8 and in characters
// (Unicode code points).
type Highlight struct {
	Path      string `json:"path"`
	ByteStart int    `json:"byteStart"`
	ByteEnd   int    `json:"byteEnd"`
	CharStart int    `json:"charStart"`
	CharEnd   int    `json:"charEnd"`
	Before    string `json:"before"` // what comes right before, cut at a character
	Match     string `json:"match"`
	After     string `json:"after"`
}

const (
	maxHighlights = 5   // of a hit
	maxPerPassage = 3   // so that others are seen too
	around        = 120 // bytes before and after
)

// Marker finds the places in texts that a plan's clauses ask for.
type Marker struct {
	clauses []Clause
	longest int
}

// Marker is nil if the plan asks for no words.
func (p *Plan) Marker() *Marker {
	m := &Marker{}
	for _, c := range p.Clauses {
		if !c.Not && len(c.Words) > 0 && c.Is(Text) {
			m.clauses = append(m.clauses, c)
			m.longest = max(m.longest, len(c.Words))
		}
	}
	if len(m.clauses) == 0 {
		return nil
	}
	return m
}

// Mark finds the first places.
func (m *Marker) Mark(passages []Passage) []Highlight {
	var all []Highlight
	for _, p := range passages {
		found := 0
		for span := range m.spans(p) {
			if found == maxPerPassage || len(all) == maxHighlights {
				break
			}
			all = append(all, highlight(p, span[0], span[1]))
			found++
		}
		if len(all) == maxHighlights {
			break
		}
	}
	return all
}

// spans are the places in a passage, as bytes from and to, none inside another.
func (m *Marker) spans(p Passage) func(yield func([2]int) bool) {
	return func(yield func([2]int) bool) {
		var last []Token // that a clause can end with
		end := 0
		for t := range Scan(p.Text) {
			if last = append(last, t); len(last) > m.longest {
				last = slices.Delete(last, 0, 1)
			}
			start := -1
			for _, c := range m.clauses {
				if at, ok := c.endsIn(p.Path, last); ok && at >= end && (start < 0 || at < start) {
					start = at
				}
			}
			if start < 0 {
				continue
			}
			end = t.End
			if !yield([2]int{start, end}) {
				return
			}
		}
	}
}

// endsIn tells whether the clause's words are the last of those given, and where they begin.
func (c Clause) endsIn(path string, tokens []Token) (start int, ok bool) {
	n := len(c.Words)
	if len(tokens) < n || !c.concerns(path) {
		return 0, false
	}
	tokens = tokens[len(tokens)-n:]
	for i, word := range c.Words {
		same := tokens[i].Text == word || c.Prefix && i == n-1 && strings.HasPrefix(tokens[i].Text, word)
		if !same {
			return 0, false
		}
	}
	return tokens[0].Start, true
}

// concerns tells whether a clause looks at the text at a path.
func (c Clause) concerns(path string) bool {
	last := path[strings.LastIndexByte(path, '.')+1:]
	last, _, _ = strings.Cut(last, "[")
	switch c.Field {
	case "":
		return true
	case LabelField:
		return last == "label" || last == "labels" || last == "canonicalLabel"
	default:
		return path == c.Field || strings.HasPrefix(path, c.Field+"[")
	}
}

func highlight(p Passage, start, end int) Highlight {
	before, after := max(0, start-around), min(len(p.Text), end+around)
	for before < start && !utf8.RuneStart(p.Text[before]) {
		before++
	}
	for after < len(p.Text) && after > end && !utf8.RuneStart(p.Text[after]) {
		after--
	}
	chars := utf8.RuneCountInString(p.Text[:start])
	return Highlight{
		Path: p.Path, ByteStart: start, ByteEnd: end, CharStart: chars, CharEnd: chars + utf8.RuneCountInString(p.Text[start:end]),
		Before: p.Text[before:start], Match: p.Text[start:end], After: p.Text[end:after],
	}
}

package project

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/query"
	"github.com/layers-pub/layers-appview/internal/record"
)

// document gathers what a record's body holds besides its value.
type document struct {
	path                         []byte // to the value at hand
	passages                     []query.Passage
	words                        map[string]string // of the passages' texts
	labels, languages, knowledge set
}

// text keeps a text, and gives its words.
func (d *document) text(v string) string {
	words, ok := d.words[v]
	if ok || v == "" {
		return words
	}
	if d.words == nil {
		d.words = map[string]string{}
	}
	words = query.Normalise(v)
	d.words[v] = words
	d.passages = append(d.passages, query.Passage{Path: string(d.path), Text: v})
	return words
}

// within goes on at a property of the value at hand.
func (d *document) within(name string, do func()) {
	before := len(d.path)
	if before > 0 {
		d.path = append(d.path, '.')
	}
	d.path = append(d.path, name...)
	do()
	d.path = d.path[:before]
}

// each goes on at the elements of a list at hand.
func (d *document) each(values []any, do func(any)) {
	before := len(d.path)
	for i, v := range values {
		d.path = append(d.path, '[')
		d.path = strconv.AppendInt(d.path, int64(i), 10)
		d.path = append(d.path, ']')
		do(v)
		d.path = d.path[:before]
	}
}

// set keeps distinct strings in the order they came.
type set struct {
	seen map[string]struct{}
	list []string
}

func (s *set) add(v string) {
	if _, ok := s.seen[v]; ok || v == "" {
		return
	}
	if s.seen == nil {
		s.seen = map[string]struct{}{}
	}
	s.seen[v] = struct{}{}
	s.list = append(s.list, v)
}

// body is what the index keeps of a record whose collection has this shape.
//
// A body holds a text once as it was written and up to twice by its words, which are
// hardly longer: its size is bounded by the record's.
func (s *shape) body(rec record.Record, value map[string]any) (json.RawMessage, error) {
	var doc document
	fields := doc.object(s, value)
	fields[sortField] = sortKey(rec)
	if title := title(value); title != "" {
		fields[titleField], fields[titleWordsField] = title, query.Normalise(title)
		fields[completeField] = query.Completions(title)
	}
	if len(doc.passages) > 0 {
		fields[textField], fields[wordsField] = doc.passages, doc.allWords()
	}
	putList(fields, labelsField, doc.labels)
	var labels set
	for _, l := range doc.labels.list {
		labels.add(query.Normalise(l))
	}
	putList(fields, labelWordsField, labels)
	putList(fields, languagesField, doc.languages)
	putList(fields, knowledgeField, doc.knowledge)
	return encode(fields)
}

func (d *document) allWords() []string {
	out := make([]string, 0, len(d.passages))
	for _, p := range d.passages {
		if words := d.words[p.Text]; words != "" {
			out = append(out, words)
		}
	}
	return out
}

// sortKey puts records in the order of lists, the newest first.
func sortKey(rec record.Record) int64 {
	at := rec.IndexedAt
	if !rec.CreatedAt.IsZero() && rec.CreatedAt.Before(at) {
		at = rec.CreatedAt
	}
	return -at.UnixMicro()
}

func putList(fields map[string]any, name string, values set) {
	if len(values.list) > 0 {
		fields[name] = values.list
	}
}

func decode(value json.RawMessage) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber() // integers go beyond float64
	var out map[string]any
	if err := decoder.Decode(&out); err != nil {
		return nil, fmt.Errorf("decoding value: %w", err)
	}
	if out == nil {
		return nil, fmt.Errorf("decoding value: it is null")
	}
	return out, nil
}

func encode(v any) (json.RawMessage, error) {
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding document: %w", err)
	}
	return buf.Bytes(), nil
}

var lastTime = time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC)

// indexTime is a time as the index's date fields take it: UTC, milliseconds, and
// no year past 9999, which a valid datetime can reach by its offset.
func indexTime(t time.Time) string {
	t = t.UTC()
	if t.After(lastTime) {
		t = lastTime
	}
	return t.Format("2006-01-02T15:04:05.000Z")
}

// title names the record for a reader, empty if nothing does.
func title(value map[string]any) string {
	for _, name := range titleProperties {
		if s, ok := value[name].(string); ok && s != "" {
			return s
		}
	}
	return ""
}

// object is what the index keeps of an object.
func (d *document) object(s *shape, value map[string]any) map[string]any {
	out := make(map[string]any, len(value))
	var kinds []string
	for _, p := range s.props {
		v, ok := value[p.name]
		if !ok || v == nil {
			continue
		}
		kinds = append(kinds, p.name)
		d.note(p, v)
		d.within(p.name, func() {
			if kept := d.value(p.shape, v); kept != nil && p.mapped {
				out[p.name] = kept
			}
		})
	}
	if len(kinds) > 0 && s.mapped && s.isChoice() {
		out[choiceField] = kinds
	}
	return out
}

// note adds labels and languages, which are known by their property's name.
func (d *document) note(p property, v any) {
	var into *set
	switch p.name {
	case "label", "labels", "canonicalLabel":
		into = &d.labels
	case "language", "languages", "sourceLang", "targetLang":
		into = &d.languages
	default:
		return
	}
	values, ok := v.([]any)
	if !ok {
		values = []any{v}
	}
	for _, v := range values {
		s, ok := v.(string)
		switch {
		case !ok:
		case into == &d.languages:
			into.add(record.FilterTerm(strings.ToLower(s)))
		default:
			into.add(record.FilterTerm(s))
		}
	}
}

// value is what the index keeps of a value, nil if nothing. A value that is not
// of its shape is left out; the record was checked before, so only a lexicon
// that changed can bring one.
func (d *document) value(s *shape, v any) any {
	switch s.kind {
	case text:
		return d.string(s, v)
	case datetime:
		return date(v)
	case integer:
		if n, ok := v.(json.Number); ok {
			return n
		}
	case boolean:
		if b, ok := v.(bool); ok {
			return b
		}
	case array:
		return d.array(s, v)
	case object, union, blob, link:
		if m, ok := v.(map[string]any); ok {
			return d.structure(s, m)
		}
	case open:
		d.strings(v)
	}
	return nil
}

func (d *document) structure(s *shape, m map[string]any) any {
	switch {
	case s.def == defFeatureMap:
		entries, ok := m["entries"].([]any)
		if !ok {
			return nil
		}
		terms := make([]string, 0, len(entries))
		d.within("entries", func() {
			d.each(entries, func(entry any) { terms = append(terms, d.feature(entry)) })
		})
		return terms
	case s.def == defFeature:
		return []string{d.feature(m)}
	case s.def == defKnowledgeRef:
		return d.knowledgeRef(m)
	case s.kind == blob:
		return map[string]any{"mimeType": m["mimeType"], "size": m["size"]}
	case s.kind == link:
		return stringTerm(m["$link"])
	case s.kind == union:
		return d.union(s, m)
	default:
		return d.object(s, m)
	}
}

func (d *document) union(s *shape, m map[string]any) any {
	variant := s.variant(m)
	if variant == nil {
		d.strings(m)
		return map[string]any{typeField: stringTerm(m["$type"])}
	}
	out := d.object(variant, m)
	out[typeField] = stringTerm(m["$type"])
	return out
}

func (d *document) string(s *shape, v any) any {
	str, ok := v.(string)
	switch {
	case !ok:
		return nil
	case s.form() == term:
		return record.FilterTerm(str)
	case s.inner:
		d.text(str)
		return str
	default:
		return d.text(str)
	}
}

func stringTerm(v any) any {
	if s, ok := v.(string); ok {
		return record.FilterTerm(s)
	}
	return nil
}

func date(v any) any {
	s, _ := v.(string)
	t, err := syntax.ParseDatetimeTime(s)
	if err != nil {
		return nil
	}
	return indexTime(t)
}

func (d *document) array(s *shape, v any) any {
	values, ok := v.([]any)
	if !ok {
		return nil
	}
	out := make([]any, 0, len(values))
	d.each(values, func(v any) {
		if kept := d.value(s.items, v); kept != nil {
			out = append(out, kept)
		}
	})
	return out
}

// feature is a term of the form key=value.
func (d *document) feature(entry any) string {
	m, _ := entry.(map[string]any)
	key, _ := m["key"].(string)
	value, _ := m["value"].(string)
	d.within("value", func() { d.text(value) })
	return record.FilterTerm(key + "=" + value)
}

// knowledgeRef is a term of the form source:identifier.
func (d *document) knowledgeRef(m map[string]any) any {
	source, _ := m["source"].(string)
	identifier, _ := m["identifier"].(string)
	name, _ := m["label"].(string)
	d.within("label", func() { d.text(name) })
	d.within("identifier", func() { d.text(identifier) })
	term := record.FilterTerm(source + ":" + identifier)
	d.knowledge.add(term)
	return term
}

// strings adds the strings of a value whose shape is not known to the full text.
func (d *document) strings(v any) {
	switch v := v.(type) {
	case string:
		d.text(v)
	case []any:
		d.each(v, d.strings)
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if !strings.HasPrefix(name, "$") {
				d.within(name, func() { d.strings(v[name]) })
			}
		}
	}
}

package catalog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Checked is what a valid record comes to.
type Checked struct {
	JSON json.RawMessage // the record in the data model's JSON form; it decodes to the same DAG-CBOR block
	// CreatedAt is what the record says, in UTC and microseconds, moved into the
	// years 1 to 9999 where it is outside; zero where it does not say.
	CreatedAt time.Time
	Refs      []record.Ref // what it refers to, each path and target once, in the record's order
	// Links are the DIDs and URIs that it names, each path and target once, in the
	// record's order. A foreign record has none: without a lexicon, a text that looks
	// like one may be anything.
	Links []record.Link
	// Filter has, for each property by which a list query filters and that the
	// record has, its [record.FilterTerm]: a string, or a []string if the
	// property is an array. Never nil.
	Filter map[string]any
}

// Check decodes and validates the block of a record. A record that is refused
// gives an [*Invalid]; any other error means that the key's collection is neither
// in the lexicons nor followed.
//
// The checks, in their order: the size; canonical DAG-CBOR, the data model, nesting
// and integers; $type, which is the collection; the record key's syntax; the
// lexicon, unless the collection is foreign. Every key that the protocol allows
// is taken, whatever kind of key the lexicon asks for: that is advice to those
// who write records, and no repository enforces it.
func (c *Catalog) Check(key record.Key, block []byte) (Checked, error) {
	collection, ok := c.Collection(key.Collection)
	if !ok {
		return Checked{}, fmt.Errorf("check %s: collection has no lexicon and is not followed", key)
	}
	if len(block) > MaxSize {
		return Checked{}, &Invalid{Reason: "record too large", Expected: "at most " + strconv.Itoa(MaxSize) + " bytes", Received: strconv.Itoa(len(block)) + " bytes"}
	}
	room := scratch.Get().(*[]byte)
	defer scratch.Put(room)
	s := scanner{text: string(block), json: (*room)[:0]}
	defer func() { *room = s.json }()
	if err := s.scan(); err != nil {
		return Checked{}, err
	}
	if err := s.checkName(key); err != nil {
		return Checked{}, err
	}
	checked := Checked{CreatedAt: s.createdAt(), Filter: map[string]any{}}
	if collection.Foreign {
		checked.JSON, checked.Refs = bytes.Clone(s.json), s.looseReferences()
		return checked, nil
	}
	w := walk{reader: reader{text: s.text}, catalog: c}
	if err := w.value(collection.Schema); err != nil {
		return Checked{}, err.whole()
	}
	checked.JSON, checked.Refs = bytes.Clone(s.json), w.refs.list
	checked.Links = w.links.list
	for _, e := range s.root {
		if f, ok := collection.filters[e.key]; ok {
			if terms := f.terms(reader{s.text, e.value}); terms != nil {
				checked.Filter[f.Name] = terms // not e.key, which is a part of the block
			}
		}
	}
	return checked, nil
}

// scratch has room for JSON in the making: how long it gets is not known before, and
// what is returned, which may be kept for long, is no longer than it must be.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// checkName holds the record to the name that the repository has it under.
func (s *scanner) checkName(key record.Key) *Invalid {
	name, ok := reader{text: s.text}.typeName()
	switch {
	case !ok:
		return &Invalid{Path: typeKey, Reason: "required property missing", Expected: string(key.Collection), Received: "nothing"}
	case name != string(key.Collection):
		return &Invalid{Path: typeKey, Reason: "record is in a collection of another type", Expected: string(key.Collection), Received: excerpt(name, maxExcerpt)}
	}
	if !isRecordKey(string(key.Rkey)) {
		return &Invalid{Reason: "record key out of syntax", Expected: "1 to 512 of A-Z a-z 0-9 . - _ : ~, but not . or ..", Received: excerpt(string(key.Rkey), maxExcerpt)}
	}
	return nil
}

// The times that createdAt can be. A datetime's year 0, and what its offset can
// make of 9999, are times that neither JSON nor every date type of the stores can
// say, and the very first of year 1 is Go's zero time, which means none.
var (
	firstTime = time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC)
	lastTime  = time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
)

// createdAt is the record's createdAt if that is a datetime, in UTC, to the
// microsecond that PostgreSQL keeps, and moved to firstTime or lastTime if it is
// beyond them. Without one it is the zero time.
func (s *scanner) createdAt() time.Time {
	for _, e := range s.root {
		if e.key != "createdAt" || s.text[e.value]>>5 != majorText {
			continue
		}
		r := reader{s.text, e.value}
		t, err := syntax.ParseDatetimeTime(r.string())
		switch {
		case err != nil:
			return time.Time{}
		case t.Before(firstTime):
			return firstTime
		case t.After(lastTime):
			return lastTime
		}
		return t.UTC().Truncate(time.Microsecond)
	}
	return time.Time{}
}

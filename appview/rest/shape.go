package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
)

// view is a record in an answer.
type view struct {
	URI   syntax.ATURI    `json:"uri"`
	CID   syntax.CID      `json:"cid"`
	Value json.RawMessage `json:"value"`
}

// one is the answer of a get.
type one struct {
	view
	Included map[syntax.ATURI]view `json:"included,omitempty"`
}

// page is the answer of a list.
type page struct {
	Records  []view                `json:"records"`
	Cursor   string                `json:"cursor,omitempty"`
	Included map[syntax.ATURI]view `json:"included,omitempty"`
}

func viewOf(r record.Record) view { return view{URI: r.Key.URI(), CID: r.CID, Value: r.Value} }

// shapeParams choose how much of a record an answer has.
func (s *Service) shapeParams() []Param {
	fields := Repeated(Text("fields", "Only these parts of each value: dotted paths, several with commas between them or the parameter repeated. A path goes through arrays, as annotations.label. Without it, values are whole and byte for byte as they were written.", "createdAt"))
	expand := Repeated(Text("expand", "References whose targets are to be in the answer too, under `included`: the paths at which the records refer, several with commas between them, or * for all. At most 500 targets a request.", "*"))
	return []Param{fields, expand}
}

// shape is what a request asks to see of each record.
type shape struct {
	fields *selection // nil: the whole
	expand []string   // reference paths whose targets are to be included
}

// shape reads the parameters of [Service.shapeParams], whose paths the lexicon has to know.
func (t *recordType) shape(c *Call) (shape, error) {
	var s shape
	for _, path := range listed(c.Texts("fields")) {
		if !inSchema(t.collection.Schema, strings.Split(path, ".")) {
			return s, xrpc.InvalidRequest("parameter %q: records of %s have no property %s", "fields", t.collection.NSID, xrpc.Quote(path))
		}
		if s.fields == nil {
			s.fields = &selection{}
		}
		s.fields.add(strings.Split(path, "."))
	}
	for _, path := range listed(c.Texts("expand")) {
		if path != everyPath && !inSchema(t.collection.Schema, strings.Split(path, ".")) {
			return s, xrpc.InvalidRequest("parameter %q: records of %s have no property %s", "expand", t.collection.NSID, xrpc.Quote(path))
		}
		s.expand = append(s.expand, path)
	}
	return s, nil
}

// listed are the items of lists with commas. [] for "any element" may be left out
// of a path or not.
func listed(values []string) (items []string) {
	for _, value := range values {
		for item := range strings.SplitSeq(value, ",") {
			if item = strings.ReplaceAll(strings.TrimSpace(item), "[]", ""); item != "" {
				items = append(items, item)
			}
		}
	}
	slices.Sort(items)
	return slices.Compact(items)
}

// inSchema tells whether a path may lead to something in values of a schema. Inside
// of what the lexicon leaves open, every path may.
func inSchema(s *catalog.Schema, path []string) bool {
	if len(path) == 0 {
		return true
	}
	switch s.Type {
	case catalog.Array:
		return inSchema(s.Items, path)
	case catalog.Object:
		if path[0] == "$type" {
			return len(path) == 1
		}
		p := s.Property(path[0])
		return p != nil && inSchema(p.Schema, path[1:])
	case catalog.Union:
		return !s.Closed || path[0] == "$type" || slices.ContainsFunc(s.Variants, func(v *catalog.Schema) bool { return inSchema(v, path) })
	case catalog.Unknown, catalog.Blob, catalog.CIDLink, catalog.Bytes:
		return true
	}
	return false
}

func (s shape) view(r record.Record) (view, error) {
	v := viewOf(r)
	if s.fields == nil {
		return v, nil
	}
	var b bytes.Buffer
	if err := s.fields.project(&b, r.Value); err != nil {
		return v, fmt.Errorf("choose fields of %s: %w", r.Key, err)
	}
	v.Value = b.Bytes()
	return v, nil
}

// selection is a tree of paths. An empty one selects all.
type selection struct {
	inner map[string]*selection
	all   bool
}

func (s *selection) add(path []string) {
	if len(path) == 0 {
		s.all = true
		return
	}
	if s.inner == nil {
		s.inner = map[string]*selection{}
	}
	if s.inner[path[0]] == nil {
		s.inner[path[0]] = &selection{}
	}
	s.inner[path[0]].add(path[1:])
}

// project writes what is selected of a JSON value, each part as it stands there.
func (s *selection) project(b *bytes.Buffer, value json.RawMessage) error {
	value = bytes.TrimSpace(value)
	switch {
	case s.all || len(value) == 0:
		b.Write(value)
		return nil
	case value[0] == '{':
		return s.projectObject(b, value)
	case value[0] == '[':
		return s.projectArray(b, value)
	}
	b.WriteString("null") // a path leads on where the value has nothing inside
	return nil
}

func (s *selection) projectObject(b *bytes.Buffer, value json.RawMessage) error {
	decoder := json.NewDecoder(bytes.NewReader(value))
	if _, err := decoder.Token(); err != nil {
		return err
	}
	b.WriteByte('{')
	first := true
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return err
		}
		var part json.RawMessage
		if err := decoder.Decode(&part); err != nil {
			return err
		}
		inner := s.inner[name.(string)]
		if inner == nil {
			continue
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		quoted, err := json.Marshal(name)
		if err != nil {
			return err
		}
		b.Write(quoted)
		b.WriteByte(':')
		if err := inner.project(b, part); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

func (s *selection) projectArray(b *bytes.Buffer, value json.RawMessage) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(value, &parts); err != nil {
		return err
	}
	b.WriteByte('[')
	for i, part := range parts {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := s.project(b, part); err != nil {
			return err
		}
	}
	b.WriteByte(']')
	return nil
}

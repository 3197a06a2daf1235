package search

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/query"
)

// found is what a search has found. It is read from the answer hit by hit, so that
// no more than one record's text is held at a time.
type found struct {
	plan   *query.Plan
	marker *query.Marker

	view   string
	total  query.Total
	hits   []query.Hit
	sorts  []json.RawMessage
	facets map[string][]query.Count
}

// foundHit is a hit as the server writes it.
type foundHit struct {
	Score  *float64        `json:"_score"`
	Sort   json.RawMessage `json:"sort"`
	Source struct {
		URI        syntax.ATURI `json:"uri"`
		CID        syntax.CID   `json:"cid"`
		Collection syntax.NSID  `json:"collection"`
		CreatedAt  *time.Time   `json:"createdAt"`
		Value      struct {
			Title string          `json:"$title"`
			Text  []query.Passage `json:"$text"`
		} `json:"value"`
	} `json:"_source"`
	Inner struct {
		Annotations struct {
			Hits struct {
				Total struct{ Value int64 }
				Hits  []foundAnnotation
			}
		}
	} `json:"inner_hits"`
}

// foundAnnotation has its columns by their paths, each with a list of values.
type foundAnnotation struct {
	Nested struct{ Offset int } `json:"_nested"`
	Fields map[string][]any     `json:"fields"`
}

// readFrom takes an answer apart as it comes. One that is not of the whole index, or
// that has no hits to tell of, is an error.
func (f *found) readFrom(r io.Reader) error {
	var asked shards
	var timedOut bool
	d := json.NewDecoder(r)
	err := members(d, func(name string) error {
		switch name {
		case "_shards":
			return d.Decode(&asked)
		case "timed_out":
			return d.Decode(&timedOut)
		case "pit_id":
			return d.Decode(&f.view)
		case "aggregations":
			return f.readFacets(d)
		case "hits":
			f.hits = []query.Hit{}
			return members(d, func(name string) error {
				switch name {
				case "total":
					var total struct {
						Value    int64
						Relation string
					}
					err := d.Decode(&total)
					f.total = query.Total{Value: total.Value, Exact: total.Relation == "eq"}
					return err
				case "hits":
					return elements(d, func() error { return f.readHit(d) })
				default:
					return d.Decode(new(json.RawMessage))
				}
			})
		default:
			return d.Decode(new(json.RawMessage))
		}
	})
	switch {
	case err != nil:
		return err
	case timedOut:
		return fmt.Errorf("%w: its time was over", errPartial)
	case f.hits == nil:
		return fmt.Errorf("%w: there are no hits in it", errPartial)
	}
	return asked.whole()
}

// members calls fn at the value of each member of an object.
func members(d *json.Decoder, fn func(name string) error) error {
	return within(d, '{', func() error {
		name, err := d.Token()
		if err != nil {
			return err
		}
		return fn(fmt.Sprint(name))
	})
}

func elements(d *json.Decoder, fn func() error) error { return within(d, '[', fn) }

func within(d *json.Decoder, open json.Delim, fn func() error) error {
	if t, err := d.Token(); err != nil || t != open {
		return fmt.Errorf("expected %v, found %v: %w", open, t, err)
	}
	for d.More() {
		if err := fn(); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

func (f *found) readHit(d *json.Decoder) error {
	var h foundHit
	if err := d.Decode(&h); err != nil {
		return err
	}
	f.sorts = append(f.sorts, h.Sort)
	s := h.Source
	hit := query.Hit{URI: s.URI, CID: s.CID, Type: s.Collection, Title: s.Value.Title, CreatedAt: s.CreatedAt}
	if h.Score != nil {
		hit.Score = *h.Score
	}
	if f.marker != nil {
		hit.Highlights = f.marker.Mark(s.Value.Text)
	}
	if inner := h.Inner.Annotations.Hits; f.plan != nil && f.plan.Annotations != nil {
		hit.Matching = inner.Total.Value
		for _, a := range inner.Hits {
			hit.Annotations = append(hit.Annotations, a.annotation("value."+f.plan.Annotated+"."))
		}
	}
	f.hits = append(f.hits, hit)
	return nil
}

func (a foundAnnotation) annotation(path string) query.Annotation {
	text := func(name string) string {
		if v := a.Fields[path+name]; len(v) > 0 {
			s, _ := v[0].(string)
			return s
		}
		return ""
	}
	number := func(names ...string) *int64 {
		for _, name := range names {
			if v := a.Fields[path+name]; len(v) > 0 {
				if n, ok := v[0].(float64); ok {
					whole := int64(n)
					return &whole
				}
			}
		}
		return nil
	}
	return query.Annotation{
		Ordinal: a.Nested.Offset, UUID: text("uuid.value"), Label: text("label"), Value: text("value"), Text: text("text"), Anchor: a.anchor(path),
		ByteStart:  number("anchor.textSpan.byteStart", "anchor.pageAnchor.textSpan.byteStart"),
		ByteEnd:    number("anchor.textSpan.byteEnd", "anchor.pageAnchor.textSpan.byteEnd"),
		TokenIndex: number("tokenIndex", "anchor.tokenRef.tokenIndex", "anchor.tokenRefSequence.anchorTokenIndex"), Confidence: number("confidence"),
	}
}

// anchorKinds are the members of an anchor, the most precise first.
var anchorKinds = []string{"textSpan", "tokenRef", "tokenRefSequence", "temporalSpan", "spatioTemporalAnchor", "pageAnchor", "externalTarget"}

func (a foundAnnotation) anchor(path string) string {
	set := a.Fields[path+"anchor.$kind"]
	for _, kind := range anchorKinds {
		if slices.Contains(set, any(kind)) {
			return kind
		}
	}
	return ""
}

// bucketList is a terms aggregation's answer, perhaps inside nested and filter ones.
type bucketList struct {
	Buckets []struct {
		Key    any    `json:"key"`
		String string `json:"key_as_string"`
		Count  int64  `json:"doc_count"`
	} `json:"buckets"`
	Of *struct {
		By bucketList `json:"by"`
	} `json:"of"`
}

func (f *found) readFacets(d *json.Decoder) error {
	var all map[string]bucketList
	if err := d.Decode(&all); err != nil {
		return err
	}
	f.facets = map[string][]query.Count{}
	for i, facet := range f.plan.Facets {
		list := all[strconv.Itoa(i)]
		if list.Of != nil {
			list = list.Of.By
		}
		counts := []query.Count{}
		for _, b := range list.Buckets {
			value := b.String
			if value == "" {
				switch key := b.Key.(type) {
				case float64:
					value = strconv.FormatFloat(key, 'f', -1, 64)
				default:
					value = fmt.Sprint(key)
				}
			}
			counts = append(counts, query.Count{Value: value, Count: b.Count})
		}
		f.facets[facet.Name] = counts
	}
	return nil
}

package rest

import (
	"strconv"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/appview/traffic"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// The collections that have endpoints of their own, besides those of every type.
const (
	corpora     syntax.NSID = "pub.layers.corpus.corpus"
	memberships syntax.NSID = "pub.layers.corpus.membership"
	expressions syntax.NSID = "pub.layers.expression.expression"
	layers      syntax.NSID = "pub.layers.annotation.annotationLayer"
)

func (s *Service) memberRoutes() []Route {
	corpus, expression := s.typeOf(corpora), s.typeOf(expressions)
	inCorpus := corpus.uri()
	inCorpus.Filter = "corpusRef"
	return []Route{
		{
			Path: "/corpora/{uri}/members", ID: "members", Tag: corpus.name, collection: memberships,
			Summary:     "The expressions of a corpus",
			Description: "The memberships of a corpus, newest first, each with the expression that it names; `null` where that is dangling.",
			Params:      []Param{inCorpus, memberSplit(), Limit(mostRecords, standardRecords), Cursor()},
			Answer: Answer{
				Description: "A page of memberships.", Schema: membersSchema(s), Example: map[string]any{"records": []any{}},
			},
			Handler: s.members,
			Cache:   Cache{For: keepReferences},
		},
		{
			Path: "/expressions/{uri}/annotations", ID: "annotations", Tag: expression.name, Group: traffic.References,
			Summary:     "The annotations of an expression, across its layers",
			Description: "Layers newest first, each one's annotations in its order. U+0000 in texts is shown as U+FFFD here; the layer itself has it as it was written.",
			Params: []Param{
				expression.uri(),
				Text("kind", "Only of layers of this kind.", "span"), Text("subkind", "Only of layers of this subkind.", "named-entity"),
				Text("label", "Only annotations with exactly this label.", "PERSON"), Text("anchor", "Only annotations that are anchored so.", "textSpan"),
				Number("confidence_min", "Only annotations with at least this confidence.", 0, 1000, 0),
				Limit(500, 100), Cursor(),
			},
			Answer: Answer{
				Description: "A page of annotations.", Schema: annotationsSchema(), Example: exampleAnnotations(),
			},
			Handler: s.annotations,
			Cache:   Cache{For: keepReferences, From: record.Tables},
		},
	}
}

func memberSplit() Param {
	most := 64
	return Param{Param: catalog.Param{
		Name: "split", Type: catalog.String, MaxLength: &most, Filter: "split", KnownValues: []string{"train", "dev", "test"},
		Description: "Only expressions in this part of the corpus.",
	}, Example: "train"}
}

type membership struct {
	view
	Expression *view `json:"expression"`
}

type members struct {
	Records []membership `json:"records"`
	Cursor  string       `json:"cursor,omitempty"`
}

func membersSchema(s *Service) Schema {
	return Object(map[string]Schema{
		"records": List(Object(map[string]Schema{
			"uri": uriSchema("The membership."), "cid": String("Of the membership."), "value": typeSchema(s.typeOf(memberships).collection.Schema),
			"expression": Nullable(anyView()),
		})),
		"cursor?": cursorSchema(),
	})
}

// members answers /corpora/{uri}/members.
func (s *Service) members(c *Call) error {
	if _, err := s.find(c, s.typeOf(corpora)); err != nil {
		return err
	}
	list, err := s.xrpc.Listing(c.Ctx(), c.Arguments)
	if err != nil {
		return err
	}
	records, cursor, err := list.Page(c.Ctx())
	if err != nil {
		return err
	}
	members := members{Records: make([]membership, 0, len(records)), Cursor: cursor}
	named, err := s.expressionsOf(c, records)
	if err != nil {
		return err
	}
	for _, r := range records {
		members.Records = append(members.Records, membership{view: viewOf(r), Expression: named[r.Key]})
	}
	return c.Answer(members)
}

// expressionsOf reads the expression that each membership names.
func (s *Service) expressionsOf(c *Call, of []record.Record) (map[record.Key]*view, error) {
	named := map[record.Key]*view{}
	if len(of) == 0 {
		return named, nil
	}
	var keys []record.Key
	for i := range of {
		keys = append(keys, of[i].Key)
	}
	found, err := s.reads.Targets(c.Ctx(), keys, []string{"expressionRef"}, len(keys))
	if err != nil {
		return nil, err
	}
	views, err := s.views(c.Ctx(), keysOf(found))
	if err != nil {
		return nil, err
	}
	for _, r := range found {
		if v, ok := views[syntax.ATURI(r.Target)]; ok {
			named[r.Source] = &v
		}
	}
	return named, nil
}

// annotation is one in an answer.
type annotation struct {
	Layer      syntax.ATURI `json:"layer"`
	Kind       string       `json:"kind,omitempty"`
	Subkind    string       `json:"subkind,omitempty"`
	Ordinal    int          `json:"ordinal"`
	UUID       string       `json:"uuid,omitempty"`
	Label      string       `json:"label,omitempty"`
	Value      string       `json:"value,omitempty"`
	Text       string       `json:"text,omitempty"`
	Anchor     *anchor      `json:"anchor,omitempty"`
	Confidence *int64       `json:"confidence,omitempty"`
}

type anchor struct {
	Kind       string `json:"kind"`
	ByteStart  *int64 `json:"byteStart,omitempty"`
	ByteEnd    *int64 `json:"byteEnd,omitempty"`
	TokenIndex *int64 `json:"tokenIndex,omitempty"`
}

type annotations struct {
	Annotations []annotation `json:"annotations"`
	Cursor      string       `json:"cursor,omitempty"`
}

func annotationsSchema() Schema {
	return Object(map[string]Schema{
		"annotations": List(Named("Annotation", Object(map[string]Schema{
			"layer": uriSchema("The annotation layer."), "kind?": String("Of the layer."), "subkind?": String("Of the layer."),
			"ordinal": Integer("Place in the layer, from 0."), "uuid?": String("The annotation's own identifier."),
			"label?": String("Label."), "value?": String("Value."), "text?": String("Text."),
			"anchor?": Object(map[string]Schema{
				"kind": String("How it is anchored: textSpan, tokenRef, ..."), "byteStart?": Integer("First byte of the expression's text."),
				"byteEnd?": Integer("The byte after the last."), "tokenIndex?": Integer("Token."),
			}),
			"confidence?": Integer("0 to 1000."),
		}))),
		"cursor?": cursorSchema(),
	})
}

func exampleAnnotations() any {
	start, end, confidence := int64(0), int64(5), int64(930)
	return annotations{Annotations: []annotation{{
		Layer: syntax.ATURI(exampleURI(layers)), Kind: "span", Subkind: "named-entity", Label: "PERSON",
		Anchor: &anchor{Kind: "textSpan", ByteStart: &start, ByteEnd: &end}, Confidence: &confidence,
	}}}
}

// annotations answers /expressions/{uri}/annotations.
func (s *Service) annotations(c *Call) error {
	expression, err := s.find(c, s.typeOf(expressions))
	if err != nil {
		return err
	}
	query := store.AnnotationQuery{Layers: layers, Expression: expression.Key.URI(), Limit: c.Limit()}
	query.Kind, _ = c.Text("kind")
	query.Subkind, _ = c.Text("subkind")
	query.Label, _ = c.Text("label")
	query.AnchorKind, _ = c.Text("anchor")
	query.Confidence, _ = c.Int("confidence_min")
	scope := []string{"annotations", expression.Key.String(), query.Kind, query.Subkind, query.Label, query.AnchorKind, strconv.Itoa(query.Confidence)}
	if query.After, err = c.annotationAfter(scope); err != nil {
		return err
	}
	found, more, err := s.reads.AnnotationsOf(c.Ctx(), query)
	if err != nil {
		return err
	}
	answer := annotations{Annotations: make([]annotation, 0, len(found))}
	for i := range found {
		answer.Annotations = append(answer.Annotations, shown(&found[i]))
	}
	if more {
		at := found[len(found)-1].At
		answer.Cursor = encodeToken(scope, strconv.FormatInt(at.Layer.SortAt.UnixMicro(), 10), found[len(found)-1].Layer.String(), strconv.Itoa(at.Ordinal))
	}
	return c.Answer(answer)
}

func shown(a *store.FoundAnnotation) annotation {
	out := annotation{
		Layer: a.Layer.URI(), Kind: a.Kind, Subkind: a.Subkind, Ordinal: a.Ordinal, UUID: a.UUID,
		Label: a.Label, Value: a.Value, Text: a.Text, Confidence: a.Confidence,
	}
	if a.AnchorKind != "" {
		out.Anchor = &anchor{Kind: a.AnchorKind, ByteStart: a.ByteStart, ByteEnd: a.ByteEnd, TokenIndex: a.TokenIndex}
	}
	return out
}

func (c *Call) annotationAfter(scope []string) (*store.AnnotationPosition, error) {
	parts, err := c.after(scope, 3)
	if parts == nil || err != nil {
		return nil, err
	}
	micros, err1 := strconv.ParseInt(parts[0], 10, 64)
	layer, ok := recordAt(parts[1])
	ordinal, err2 := strconv.ParseInt(parts[2], 10, 32)
	if err1 != nil || err2 != nil || !ok || micros == -1<<63 {
		return nil, errToken
	}
	return &store.AnnotationPosition{
		Layer: store.Position{SortAt: time.UnixMicro(micros).UTC(), DID: layer.DID, Rkey: layer.Rkey}, Ordinal: int(ordinal),
	}, nil
}

package project

import (
	"cmp"
	"encoding/json"
	"fmt"

	"github.com/layers-pub/layers-appview/internal/record"
)

// annotationList is the name of the property that holds a record's annotations,
// empty if its collection has none.
func (s *shape) annotationList() string {
	for _, p := range s.props {
		if p.kind == array && p.items.def == defAnnotation {
			return p.name
		}
	}
	return ""
}

// annotation is what a table row takes from a pub.layers.annotation.defs#annotation.
type annotation struct {
	UUID       struct{ Value string } `json:"uuid"`
	Label      string                 `json:"label"`
	Value      string                 `json:"value"`
	Text       string                 `json:"text"`
	Anchor     anchor                 `json:"anchor"`
	TokenIndex *int64                 `json:"tokenIndex"`
	Confidence *int64                 `json:"confidence"`
}

// anchor has one member set, as a rule; nothing forbids more.
type anchor struct {
	TextSpan             *span       `json:"textSpan"`
	TokenRef             *token      `json:"tokenRef"`
	TokenRefSequence     *token      `json:"tokenRefSequence"`
	TemporalSpan         *struct{}   `json:"temporalSpan"`
	SpatioTemporalAnchor *struct{}   `json:"spatioTemporalAnchor"`
	PageAnchor           *pageAnchor `json:"pageAnchor"`
	ExternalTarget       *struct{}   `json:"externalTarget"`
}

type span struct {
	ByteStart *int64 `json:"byteStart"`
	ByteEnd   *int64 `json:"byteEnd"`
}

// token is a tokenRef, or of a tokenRefSequence its anchor token.
type token struct {
	TokenIndex       *int64 `json:"tokenIndex"`
	AnchorTokenIndex *int64 `json:"anchorTokenIndex"`
}

type pageAnchor struct {
	TextSpan *span `json:"textSpan"`
}

// kind names the member that is set, the most precise one first if there are several.
func (a anchor) kind() string {
	switch {
	case a.TextSpan != nil:
		return "textSpan"
	case a.TokenRef != nil:
		return "tokenRef"
	case a.TokenRefSequence != nil:
		return "tokenRefSequence"
	case a.TemporalSpan != nil:
		return "temporalSpan"
	case a.SpatioTemporalAnchor != nil:
		return "spatioTemporalAnchor"
	case a.PageAnchor != nil:
		return "pageAnchor"
	case a.ExternalTarget != nil:
		return "externalTarget"
	default:
		return ""
	}
}

// span is the stretch of the expression's text, empty where the anchor has none.
func (a anchor) span() span {
	switch {
	case a.TextSpan != nil:
		return *a.TextSpan
	case a.PageAnchor != nil && a.PageAnchor.TextSpan != nil:
		return *a.PageAnchor.TextSpan
	default:
		return span{}
	}
}

func (a anchor) tokenIndex() *int64 {
	switch {
	case a.TokenRef != nil:
		return a.TokenRef.TokenIndex
	case a.TokenRefSequence != nil:
		return a.TokenRefSequence.AnchorTokenIndex
	default:
		return nil
	}
}

// annotations flattens the array under name, in its order.
func annotations(rec record.Record, name string) ([]record.Annotation, error) {
	var value map[string]json.RawMessage
	if err := json.Unmarshal(rec.Value, &value); err != nil {
		return nil, fmt.Errorf("annotations of %s: decoding value: %w", rec.Key, err)
	}
	var list []annotation
	if raw, ok := value[name]; ok {
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, fmt.Errorf("annotations of %s: decoding %s: %w", rec.Key, name, err)
		}
	}
	rows := make([]record.Annotation, len(list))
	for i, a := range list {
		rows[i] = a.row(rec.Key, i)
	}
	return rows, nil
}

func (a annotation) row(layer record.Key, ordinal int) record.Annotation {
	span := a.Anchor.span()
	return record.Annotation{
		Layer:      layer,
		Ordinal:    ordinal,
		UUID:       a.UUID.Value,
		Label:      a.Label,
		Value:      a.Value,
		Text:       a.Text,
		AnchorKind: a.Anchor.kind(),
		ByteStart:  span.ByteStart,
		ByteEnd:    span.ByteEnd,
		TokenIndex: cmp.Or(a.TokenIndex, a.Anchor.tokenIndex()),
		Confidence: a.Confidence,
	}
}

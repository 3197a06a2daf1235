package rest

import (
	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/query"
)

func degradedSchema() Schema {
	return Boolean("True where the search server is away and PostgreSQL answered in its place: the same hits in a coarser order.")
}

func incompleteSchema() Schema {
	return Boolean("True while PostgreSQL's own search is being filled, as after it was turned on: records may be missing.")
}

func completionSchema() Schema {
	return Object(map[string]Schema{
		"uri": uriSchema("The record."), "cid": String("Of the record."), "type": String("The record's collection."), "title": String("The record's title."),
	})
}

// answerSchema is that of a page of hits.
func answerSchema() Schema {
	count := Object(map[string]Schema{"value": String("What is counted."), "count": Integer("How many have it.")})
	facets := Map(List(count))
	facets["description"] = "On the first page: by what hits are counted, and how many have each value, the most frequent first, 50 at most."
	return Named("Hits", Object(map[string]Schema{
		"hits":      List(hitSchema()),
		"total":     Object(map[string]Schema{"value": Integer("Number of hits."), "exact": Boolean("False where there are more than that.")}),
		"facets?":   facets,
		"cursor?":   cursorSchema(),
		"degraded?": degradedSchema(), "incomplete?": incompleteSchema(),
	}))
}

func hitSchema() Schema {
	return Named("Hit", Object(map[string]Schema{
		"uri": uriSchema("The record."), "cid": String("Of the record."), "type": String("The record's collection."),
		"title?":       String("What names the record for a reader."),
		"score":        {"type": "number", "description": "How well it matches, among the hits of one answer; 0 where nothing is ranked."},
		"createdAt?":   {"type": "string", "format": "date-time", "description": "As the record says."},
		"highlights?":  List(highlightSchema()),
		"annotations?": List(matchSchema()),
		"matching?":    Integer("How many annotations match, of which the first 100 are shown."),
	}))
}

func highlightSchema() Schema {
	return Named("Highlight", Object(map[string]Schema{
		"path":      String("Where in the record the text is: annotations[3].text."),
		"byteStart": Integer("First byte in that text, as UTF-8."), "byteEnd": Integer("The byte after the last."),
		"charStart": Integer("First character in that text: Unicode code points."), "charEnd": Integer("The character after the last."),
		"before": String("What comes before."), "match": String("What was found, as it is written."), "after": String("What comes after."),
	}))
}

func matchSchema() Schema {
	return Named("MatchingAnnotation", Object(map[string]Schema{
		"ordinal": Integer("Place in the layer, from 0."), "uuid?": String("The annotation's own identifier."),
		"label?": String("Label."), "value?": String("Value."), "text?": String("Text."), "anchor?": String("How it is anchored: textSpan, tokenRef, ..."),
		"byteStart?": Integer("First byte of the expression's text."), "byteEnd?": Integer("The byte after the last."),
		"tokenIndex?": Integer("Token."), "confidence?": Integer("0 to 1000."),
	}))
}

func exampleHits(annotated bool) any {
	hit := query.Hit{URI: syntax.ATURI(exampleURI(expressions)), CID: exampleCID, Type: expressions, Title: "Ohùn", Score: 3.2}
	if annotated {
		hit.URI, hit.Type, hit.Title, hit.Score = syntax.ATURI(exampleURI(layers)), layers, "", 0
		hit.Annotations, hit.Matching = []query.Annotation{{
			Ordinal: 4, Label: "PERSON", Anchor: "textSpan", ByteStart: pointer(int64(0)), ByteEnd: pointer(int64(5)), Confidence: pointer(int64(930)),
		}}, 1
	} else {
		hit.Highlights = []query.Highlight{{Path: "text", ByteStart: 0, ByteEnd: 5, CharStart: 0, CharEnd: 4, Match: "Ohùn", After: " ní èdè Yorùbá"}}
	}
	return searched{Answer: query.Answer{Hits: []query.Hit{hit}, Total: query.Total{Value: 1, Exact: true}}}
}

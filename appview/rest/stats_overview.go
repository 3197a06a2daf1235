package rest

import (
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store/statistics"
)

// overview is the answer of /stats.
type overview struct {
	RefreshedAt time.Time      `json:"refreshedAt"`
	Records     []recordCount  `json:"records"`
	Statistics  *corpusFigures `json:"statistics"`
	Labels      topLabel       `json:"labels"`
	References  []density      `json:"references"`
	Relations   []density      `json:"relations"`
}

// recordCount is how many records of a collection there are.
type recordCount struct {
	Type  string `json:"type"`
	Count int64  `json:"count"`
}

// density is how dense a graph is.
type density struct {
	Name     string   `json:"name,omitempty"`
	Nodes    int64    `json:"nodes"`
	Edges    int64    `json:"edges"`
	Resolved int64    `json:"resolved"`
	Within   int64    `json:"within"`
	Density  *float64 `json:"density"`
}

// densitiesOf gives the graph as a whole first. A graph without nodes has one, too.
func densitiesOf(found []statistics.Density) []density {
	if len(found) == 0 {
		found = []statistics.Density{{}}
	}
	var out []density
	for _, d := range found {
		v := density{Name: d.Name, Nodes: d.Nodes, Edges: d.Edges, Resolved: d.Resolved, Within: d.Within}
		if d.Nodes > 1 {
			v.Density = pointer(float64(d.Within) / float64(d.Nodes) / float64(d.Nodes-1))
		}
		out = append(out, v)
	}
	return out
}

// statsOverview answers /stats.
func (s *Service) statsOverview(c *Call) error {
	counted, at, err := s.stats.Corpus(c.Ctx(), record.Key{})
	if err != nil {
		return uncounted(err)
	}
	references, relations, _, err := s.stats.Densities(c.Ctx())
	if err != nil {
		return uncounted(err)
	}
	answer := overview{RefreshedAt: at, Records: []recordCount{}, Statistics: figuresOf(counted), References: densitiesOf(references), Relations: densitiesOf(relations)}
	for _, d := range references {
		if d.Name != "" {
			answer.Records = append(answer.Records, recordCount{Type: d.Name, Count: d.Nodes})
		}
	}
	if answer.Labels, err = s.topLabels(c, record.Key{}); err != nil {
		return uncounted(err)
	}
	return c.Answer(answer)
}

// storable tells whether PostgreSQL can compare with a text.
func storable(text string) bool { return !strings.Contains(text, "\x00") }

func momentSchema() Schema {
	return Schema{"type": "string", "format": "date-time", "description": "The moment that the figures are of."}
}

func coverageSchema() Schema {
	share := func(of string) Schema {
		return Schema{"type": []string{"number", "null"}, "description": "Share of the " + of + " that is covered, from 0 to 1; null where there are none."}
	}
	return Named("Coverage", Object(map[string]Schema{
		"kind?": String("Of the layers; absent for any kind."), "subkind?": String("Of the layers."),
		"expressions": Integer("That have such layers; of any kind: all that there are."), "layers": Integer("Layers."), "annotations": Integer("Annotations in them."),
		"bytes": Integer("Bytes of these expressions' texts."), "coveredBytes": Integer("Those in the span of an annotation."), "byteShare": share("bytes"),
		"tokens":        Integer("Tokens of the tokenizations that the layers count in."),
		"coveredTokens": Integer("Those that an annotation names; of a sequence of tokens, the one it is anchored at."), "tokenShare": share("tokens"),
	}))
}

func topLabelsSchema() Schema {
	return Object(map[string]Schema{"top": List(labelSchema()), "more": Boolean("Whether there are more, which `…/labels` has in pages.")})
}

func labelSchema() Schema {
	return Named("LabelCount", Object(map[string]Schema{
		"label": String("The label."), "kind": String("Of the layers."), "subkind?": String("Of the layers."),
		"annotations": Integer("Annotations with it."), "layers": Integer("Layers with such annotations."),
	}))
}

func labelsSchema() Schema {
	return Object(map[string]Schema{"refreshedAt": momentSchema(), "labels": List(labelSchema()), "cursor?": cursorSchema()})
}

func figuresSchema() Schema {
	counts := func(what string) Schema {
		s := List(Object(map[string]Schema{"value": String("What is counted."), "count": Integer("Expressions.")}))
		s["description"] = what
		return s
	}
	return Named("CorpusFigures", Object(map[string]Schema{
		"memberships": Integer("Membership records."), "dangling": Integer("Expressions that memberships name and that are not in the index."),
		"annotators": Integer("Repositories that have layers on the expressions."),
		"languages":  counts("Languages of the expressions, the most frequent first, 50 at most."), "splits": counts("Splits of the corpus, 50 at most."),
		"coverage": coverageSchema(), "byKind": List(coverageSchema()), "moreKinds": Boolean("Whether there are more kinds than the 100 with the most annotations."),
	}))
}

func corpusStatsSchema() Schema {
	return Object(map[string]Schema{
		"uri": uriSchema("The corpus."), "refreshedAt": momentSchema(), "statistics": Nullable(figuresSchema()), "labels": topLabelsSchema(),
		"agreement": Object(map[string]Schema{"reports": List(anyView()), "more": Boolean("Whether there are more than 100.")}),
	})
}

func expressionStatsSchema() Schema {
	return Object(map[string]Schema{
		"uri": uriSchema("The expression."), "refreshedAt": momentSchema(), "coverage": Nullable(coverageSchema()), "byKind": List(coverageSchema()),
		"moreKinds": Boolean("Whether there are more kinds than the 100 with the most annotations."),
	})
}

func overviewSchema() Schema {
	densities := func(what, name string) Schema {
		s := List(Named("Density", Object(map[string]Schema{
			"name?": String("The collection, or the type of relation; absent for the whole, which comes first."), "nodes": Integer("Nodes."), "edges": Integer("Edges: pairs of nodes, each counted once."),
			"resolved": Integer("Edges whose ends are in the index."), "within": Integer("Resolved edges between nodes of the row."),
			"density": {"type": []string{"number", "null"}, "description": "within / (nodes × (nodes − 1)); null below two nodes."},
		})))
		s["description"] = what + ": the whole first, then each " + name + " by the number of its nodes, 100 at most."
		return s
	}
	return Object(map[string]Schema{
		"refreshedAt": momentSchema(), "records": List(Object(map[string]Schema{"type": String("The collection."), "count": Integer("Records.")})),
		"statistics": Nullable(figuresSchema()), "labels": topLabelsSchema(),
		"references": densities("Records and the references between them", "collection"), "relations": densities("What graph edges relate", "type of relation"),
	})
}

var exampleMoment = time.Date(2026, 3, 14, 9, 15, 0, 0, time.UTC)

func exampleCoverage(kind, subkind string) coverage {
	return coverageOf(statistics.Part{Kind: kind, Subkind: subkind, Expressions: 318, Layers: 640, Annotations: 9120, Bytes: 81200, CoveredBytes: 12180, Tokens: 15902, CoveredTokens: 15902})
}

func exampleLabels() []label {
	return []label{{Label: "PERSON", Kind: "span", Subkind: "ner", Annotations: 412, Layers: 96}}
}

func exampleFigures() *corpusFigures {
	return &corpusFigures{
		Memberships: 318, Annotators: 4, Languages: []statistics.Count{{Value: "yo", Count: 318}}, Splits: []statistics.Count{{Value: "train", Count: 250}, {Value: "test", Count: 68}},
		Coverage: exampleCoverage("", ""), ByKind: []coverage{exampleCoverage("span", "ner")},
	}
}

func exampleCorpusStats() any {
	return corpusStats{URI: syntax.ATURI(exampleURI(corpora)), RefreshedAt: exampleMoment, Statistics: exampleFigures(), Labels: topLabel{Labels: exampleLabels()}, Agreement: agreement{Reports: []view{}}}
}

func exampleExpressionStats() any {
	return expressionStats{
		URI: syntax.ATURI(exampleURI(expressions)), RefreshedAt: exampleMoment, Coverage: pointer(exampleCoverage("", "")),
		ByKind: []coverage{exampleCoverage("span", "ner")},
	}
}

func exampleOverview() any {
	return overview{
		RefreshedAt: exampleMoment, Records: []recordCount{{Type: string(expressions), Count: 318}}, Statistics: exampleFigures(), Labels: topLabel{Labels: exampleLabels()},
		References: densitiesOf([]statistics.Density{{Nodes: 1200, Edges: 3400, Resolved: 3300, Within: 3300}}), Relations: densitiesOf([]statistics.Density{{Nodes: 90, Edges: 140, Resolved: 139, Within: 139}}),
	}
}

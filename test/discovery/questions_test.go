package discovery

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Who should answer.
const (
	postgresql    = "postgresql"
	elasticsearch = "elasticsearch"
	neo4j         = "neo4j"
)

// question is one that a researcher has, and its right answer.
type question struct {
	name   string
	by     string
	path   string // under /api/v1
	params url.Values
	read   func(page) []string // what of each page is compared
	want   []string            // sorted
}

// questions are those of the design, about what is published now.
func questions(tr *truth) []question {
	return slices.Concat(tr.useCases(), tr.examples(), tr.figures())
}

func escape(uri string) string { return url.PathEscape(uri) }

// inCorpus are the expressions of a corpus.
func (tr *truth) inCorpus(of string) map[string]bool {
	in := map[string]bool{}
	for _, m := range tr.of(membership, func(p published) bool { return p.text("corpusRef") == of }) {
		in[m.text("expressionRef")] = true
	}
	return in
}

// annotated is one annotation of a layer.
type annotated struct {
	layer published
	value map[string]any
}

// annotations are those of layers for which holds is true.
func (tr *truth) annotations(holds func(published) bool) (all []annotated) {
	for _, l := range tr.of(layer, holds) {
		for _, a := range l.each("annotations") {
			all = append(all, annotated{l, a})
		}
	}
	return all
}

// counted counts texts as facets do.
func counted(texts []string) (lines []string) {
	counts := map[string]int{}
	for _, text := range texts {
		if text != "" {
			counts[text]++
		}
	}
	for text, n := range counts {
		lines = append(lines, fmt.Sprintf("%s=%d", text, n))
	}
	return sorted(lines)
}

// useCases are the twelve of the plan.
func (tr *truth) useCases() []question {
	text := tr.first(expression, func(p published) bool {
		return p.text("kind") == "document" && len(tr.of(layer, func(l published) bool { return l.text("expression") == p.uri })) > 2
	})
	whole := tr.first(corpus, nil)
	scheme := tr.first(ontology, func(p published) bool { return len(tr.referring(p.uri, layer, "ontologyRef")) > 0 })
	author := tr.first(persona, func(p published) bool { return len(tr.referring(p.uri, layer, "metadata.personaRef")) > 0 })
	paper := tr.first(eprint, func(p published) bool { return len(tr.referring(p.uri, "pub.layers.eprint.dataLink", "eprintUri")) > 0 })
	changed := tr.first(changelog, func(p published) bool { return p.text("subjectCollection") == layer }).text("subject")
	entry := tr.anyEntry()
	edges := tr.edges()
	root := edges[0].from

	var onText, grounded, linked []string
	for _, a := range tr.annotations(func(l published) bool { return l.text("expression") == text.uri }) {
		label, _ := a.value["label"].(string)
		onText = append(onText, a.layer.uri+" "+label)
	}
	for _, p := range tr.all {
		for _, list := range [][]map[string]any{p.each("annotations"), {p.value}} {
			for _, holder := range list {
				refs, _ := holder["knowledgeRefs"].([]any)
				for _, ref := range refs {
					if at(ref, "source") == "wikidata" && at(ref, "identifier") == entry {
						grounded = append(grounded, p.uri)
					}
				}
			}
		}
	}
	for _, p := range tr.all {
		for _, place := range p.named() {
			if place[1] == paper.uri && (place[0] == "eprintUri" || place[0] == "eprintRefs[]") {
				linked = append(linked, p.uri)
			}
		}
	}
	return []question{
		{"1. all annotations on an expression", postgresql, "/expressions/" + escape(text.uri) + "/annotations", nil, annotationsRead, sorted(onText)},
		{"2. all expressions in a corpus", postgresql, "/corpora/" + escape(whole.uri) + "/members", nil, membersRead, sorted(keys(tr.inCorpus(whole.uri)))},
		{
			"2. the same from the graph", neo4j, "/graph/nodes/" + escape(whole.uri) + "/neighbors",
			url.Values{"edge_type": {"MEMBER_OF"}, "direction": {"in"}}, neighborsRead, sorted(keys(tr.inCorpus(whole.uri))),
		},
		{
			"3. all layers that use an ontology", postgresql, "/references",
			url.Values{"target": {scheme.uri}, "ref_type": {"annotation-layers"}, "path": {"ontologyRef"}}, referencesRead, tr.referring(scheme.uri, layer, "ontologyRef"),
		},
		{
			"4. all entities grounded to an entry of a knowledge base", neo4j, "/graph/grounded",
			url.Values{"knowledge": {entry}, "source": {"wikidata"}}, neighborsRead, distinct(grounded),
		},
		{
			"5. all annotations in a formalism", elasticsearch, "/annotations", url.Values{"formalism": {"universal-dependencies"}}, hitsRead,
			uris(tr.of(layer, func(l published) bool {
				return l.text("formalism") == "universal-dependencies" && len(l.each("annotations")) > 0
			})),
		},
		{
			"6. all experiments that measure acceptability", elasticsearch, "/search", url.Values{"type": {"experiments"}, "q": {"measureType:acceptability"}}, hitsRead,
			uris(tr.of(experiment, func(p published) bool { return p.text("measureType") == "acceptability" })),
		},
		{
			"7. all corpora in a language", elasticsearch, "/search", url.Values{"type": {"corpora"}, "language": {"yo"}}, hitsRead,
			uris(tr.of(corpus, func(p published) bool { return p.speaks("yo") })),
		},
		{"8. all data linked to an eprint", postgresql, "/references", url.Values{"target": {paper.uri}}, referencesRead, tr.referring(paper.uri, "", "")},
		{"8. the same from the graph", neo4j, "/eprints/" + escape(paper.uri) + "/linked", nil, neighborsRead, distinct(linked)},
		{
			"9. all annotations by a persona", postgresql, "/references",
			url.Values{"target": {author.uri}, "ref_type": {"annotation-layers"}, "path": {"metadata.personaRef"}}, referencesRead,
			tr.referring(author.uri, layer, "metadata.personaRef"),
		},
		{
			"10. the neighbourhood of a node", neo4j, "/graph/nodes/" + escape(root) + "/neighborhood",
			url.Values{"depth": {"2"}, "edge_type": {"GRAPH_EDGE"}}, nodesRead, depths(within(edges, root, 2)),
		},
		{
			"11. all changes to a record", postgresql, "/references",
			url.Values{"target": {changed}, "ref_type": {"changelog-entries"}, "path": {"subject"}}, referencesRead, tr.referring(changed, changelog, "subject"),
		},
		{
			"12. recent changes across a collection", elasticsearch, "/search",
			url.Values{"type": {"changelog-entries"}, "q": {"subjectCollection:" + layer}}, hitsRead,
			uris(tr.of(changelog, func(p published) bool { return p.text("subjectCollection") == layer })),
		},
	}
}

// anyEntry is a knowledge base's entry to which a node of the graph is grounded.
func (tr *truth) anyEntry() string {
	for _, n := range tr.of("pub.layers.graph.graphNode", nil) {
		for _, ref := range n.each("knowledgeRefs") {
			if identifier, _ := ref["identifier"].(string); ref["source"] == "wikidata" && identifier != "" {
				return identifier
			}
		}
	}
	tr.t.Fatal("no node is grounded")
	return ""
}

// examples are the questions that the design has besides.
func (tr *truth) examples() []question {
	whole := tr.corpusIn("yo")
	in := tr.inCorpus(whole.uri)
	inWhole := func(l published) bool { return in[l.text("expression")] }
	sentence := tr.first(expression, func(p published) bool { return p.text("kind") == "document" && in[p.uri] })
	var named, labels, formalisms, combined []string
	for _, a := range tr.annotations(inWhole) {
		label, _ := a.value["label"].(string)
		labels = append(labels, label)
		confidence, _ := a.value["confidence"].(int64)
		if label == "PERSON" && confidence >= 800 && a.layer.text("kind") == "span" && a.layer.speaks("yo") {
			named = append(named, a.layer.uri)
		}
		if _, spans := at(a.value, "anchor.textSpan").(map[string]any); spans && label == "PERSON" && confidence >= 700 &&
			a.layer.text("kind") == "span" && a.layer.text("subkind") == "ner" && a.layer.text("formalism") == "custom" {
			combined = append(combined, a.layer.uri)
		}
	}
	for _, l := range tr.of(layer, inWhole) {
		if len(l.each("annotations")) > 0 {
			formalisms = append(formalisms, l.text("formalism"))
		}
	}
	edges := tr.edges()
	from := edges[0].from
	far := within(edges, from, 10)
	to := ""
	for _, node := range sorted(keysOf(far)) {
		if strings.HasPrefix(node, "at://") && far[node] >= 2 {
			to = node
		}
	}
	below := map[string]int{sentence.uri: 0}
	for more := true; more; {
		more = false
		for _, p := range tr.of(expression, nil) {
			if depth, ok := below[p.text("parentRef")]; ok {
				if _, met := below[p.uri]; !met {
					below[p.uri], more = depth+1, true
				}
			}
		}
	}
	return []question{
		{
			"every span layer labelled PERSON with confidence over 0.8 on Yoruba text in this corpus", elasticsearch, "/annotations",
			url.Values{"kind": {"span"}, "label": {"PERSON"}, "confidence_min": {"800"}, "language": {"yo"}, "corpus": {whole.uri}}, hitsRead, distinct(named),
		},
		{"what refers to this sentence", postgresql, "/references", url.Values{"target": {sentence.uri}}, referencesRead, tr.referring(sentence.uri, "", "")},
		{
			"how are these two concepts connected", neo4j, "/graph/path", url.Values{"from": {from}, "to": {to}, "edge_type": {"GRAPH_EDGE"}}, pathRead,
			[]string{strconv.Itoa(far[to]) + " hops from " + from + " to " + to},
		},
		{"which formalisms does this corpus use", elasticsearch, "/annotations", url.Values{"corpus": {whole.uri}}, facetRead("formalism"), counted(formalisms)},
		{"the labels of a corpus", elasticsearch, "/annotations", url.Values{"corpus": {whole.uri}}, facetRead("annotation.label"), counted(labels)},
		{
			"kind, subkind, formalism, label, confidence and anchor together", elasticsearch, "/annotations",
			url.Values{"kind": {"span"}, "subkind": {"ner"}, "formalism": {"custom"}, "label": {"PERSON"}, "confidence_min": {"700"}, "anchor": {"textSpan"}, "corpus": {whole.uri}},
			hitsRead, distinct(combined),
		},
		{"the descendants of an expression", neo4j, "/expressions/" + escape(sentence.uri) + "/descendants", nil, nodesRead, depths(below)},
		{
			"with their layers", postgresql, "/annotation-layers", url.Values{"expression": {sentence.uri}}, recordsRead,
			uris(tr.of(layer, func(l published) bool { return l.text("expression") == sentence.uri })),
		},
		{
			"typed traversal", neo4j, "/graph/nodes/" + escape(sentence.uri) + "/neighbors", url.Values{"edge_type": {"ANNOTATES"}, "direction": {"in"}, "type": {layer}}, neighborsRead,
			uris(tr.of(layer, func(l published) bool { return l.text("expression") == sentence.uri })),
		},
	}
}

// corpusIn is a corpus with names in texts of a language.
func (tr *truth) corpusIn(language string) published {
	tr.t.Helper()
	return tr.first(corpus, func(c published) bool {
		in := tr.inCorpus(c.uri)
		return len(tr.of(layer, func(l published) bool {
			return in[l.text("expression")] && l.text("kind") == "span" && l.speaks(language) && len(l.each("annotations")) > 0
		})) > 0
	})
}

func keys(set map[string]bool) (list []string) {
	for key := range set {
		list = append(list, key)
	}
	return list
}

func keysOf(set map[string]int) (list []string) {
	for key := range set {
		list = append(list, key)
	}
	return list
}

func distinct(list []string) []string {
	set := map[string]bool{}
	for _, item := range list {
		set[item] = true
	}
	return sorted(keys(set))
}

func depths(of map[string]int) (lines []string) {
	for node, depth := range of {
		lines = append(lines, fmt.Sprintf("%s %d", node, depth))
	}
	return sorted(lines)
}

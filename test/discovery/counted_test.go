package discovery

import "fmt"

// figures are questions about what is counted now and then.
func (tr *truth) figures() []question {
	whole := tr.corpusIn("yo")
	in := tr.inCorpus(whole.uri)
	text := tr.first(expression, func(p published) bool {
		return in[p.uri] && len(tr.of(layer, func(l published) bool {
			return l.text("expression") == p.uri && l.text("subkind") == "ner" && len(l.each("annotations")) > 0
		})) > 0
	})
	return []question{
		{
			name: "how often is each label used in a corpus", by: postgresql, path: "/stats/corpora/" + escape(whole.uri) + "/labels",
			read: labelsRead, want: tr.labelled(in),
		},
		{
			name: "how much of a text is annotated", by: postgresql, path: "/stats/expressions/" + escape(text.uri),
			read: coverageRead, want: tr.covered(text),
		},
	}
}

// labelled counts the labels of layers on some expressions.
func (tr *truth) labelled(in map[string]bool) (lines []string) {
	type use struct{ label, kind, subkind string }
	annotations, layers := map[use]int{}, map[use]map[string]bool{}
	for _, a := range tr.annotations(func(l published) bool { return in[l.text("expression")] }) {
		label, _ := a.value["label"].(string)
		if label == "" {
			continue
		}
		u := use{label, a.layer.text("kind"), a.layer.text("subkind")}
		if layers[u] == nil {
			layers[u] = map[string]bool{}
		}
		annotations[u]++
		layers[u][a.layer.uri] = true
	}
	for u, n := range annotations {
		lines = append(lines, fmt.Sprintf("%s of %s/%s: %d in %d", u.label, u.kind, u.subkind, n, len(layers[u])))
	}
	return sorted(lines)
}

// covered counts the bytes of a text that spans of its layers cover, by their subkind.
func (tr *truth) covered(text published) (lines []string) {
	bytes := len(text.text("text"))
	marked, annotations := map[string]map[int64]bool{}, map[string]int{}
	for _, l := range tr.of(layer, func(l published) bool { return l.text("expression") == text.uri && l.text("kind") == "span" }) {
		subkind := l.text("subkind")
		if marked[subkind] == nil {
			marked[subkind] = map[int64]bool{}
		}
		for _, a := range l.each("annotations") {
			annotations[subkind]++
			from, _ := at(a, "anchor.textSpan.byteStart").(int64)
			to, _ := at(a, "anchor.textSpan.byteEnd").(int64)
			for i := from; i < min(to, int64(bytes)); i++ {
				marked[subkind][i] = true
			}
		}
	}
	for subkind := range marked {
		lines = append(lines, fmt.Sprintf("%s: %d annotations cover %d of %d bytes", subkind, annotations[subkind], len(marked[subkind]), bytes))
	}
	return sorted(lines)
}

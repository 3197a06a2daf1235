package fulltext

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/layers-pub/layers-appview/internal/query"
)

// row is a document in the table's columns.
type row struct {
	created                         *time.Time
	sort                            int64
	title                           string
	terms, completions              []string
	vector, words, fields, passages string
	partial                         bool
}

// body is what is read of a document's by name; see indexer/project.
type body struct {
	Title      string          `json:"$title"`
	TitleWords string          `json:"$titleWords"`
	Complete   []string        `json:"$complete"`
	Text       json.RawMessage `json:"$text"`
	Words      []string        `json:"$words"`
	Labels     []string        `json:"$labels"`
	LabelWords []string        `json:"$labelWords"`
	Languages  []string        `json:"$languages"`
	Knowledge  []string        `json:"$knowledge"`
	Sort       int64           `json:"$sort"`
}

func (d *Documents) row(doc Document) (row, error) {
	r := row{terms: []string{}, completions: []string{}, fields: "{}", passages: "[]"}
	if doc.Body == nil {
		return r, nil
	}
	var b body
	if err := json.Unmarshal(doc.Body, &b); err != nil {
		return row{}, fmt.Errorf("read document: %w", err)
	}
	r.sort, r.title = b.Sort, strings.ReplaceAll(b.Title, "\x00", "\uFFFD")
	if !doc.CreatedAt.IsZero() {
		r.created = &doc.CreatedAt
	}
	if b.Complete != nil {
		r.completions = b.Complete
	}
	if b.Text != nil {
		r.passages = string(b.Text)
	}
	r.words = texts(b.Words)
	r.vector, r.partial = vector(b)
	terms, fields, err := d.properties(doc)
	if err != nil {
		return row{}, err
	}
	if len(b.LabelWords) > 0 {
		fields[query.LabelField] = texts(b.LabelWords)
	}
	for name, values := range map[string][]string{query.LabelField: b.Labels, query.LanguageField: b.Languages, query.KnowledgeField: b.Knowledge, withinLanguage: scopes(b.Languages)} {
		for _, v := range values {
			terms = append(terms, term(name, v))
		}
	}
	slices.Sort(terms)
	r.terms = slices.Compact(terms)
	encoded, err := json.Marshal(fields)
	r.fields = string(encoded)
	return r, err
}

// withinLanguage is the name of terms by which a document is found for a wider language.
const withinLanguage = "$within"

// scopes are the languages that each of some tags is one of: yo-NG is in yo.
func scopes(tags []string) []string {
	var out []string
	for _, tag := range tags {
		for i := range tag {
			if tag[i] == '-' {
				out = append(out, tag[:i])
			}
		}
		out = append(out, tag)
	}
	return out
}

func term(name, value string) string { return name + "=" + value }

// texts puts the words of several texts in one, so that no phrase goes over a text's end.
func texts(words []string) string {
	var b strings.Builder
	for _, w := range words {
		b.WriteByte(' ')
		b.WriteString(w)
		b.WriteString(" \n")
	}
	return b.String()
}

// properties are the terms, and the words, of the fields that queries can name.
func (d *Documents) properties(doc Document) (terms []string, fields map[string]string, err error) {
	terms, fields = []string{}, map[string]string{}
	t, ok := d.schema.Type(doc.Key.Collection)
	if !ok {
		return nil, nil, fmt.Errorf("%s cannot be searched", doc.Key.Collection)
	}
	decoder := json.NewDecoder(bytes.NewReader(doc.Body))
	decoder.UseNumber() // integers go beyond float64
	var all map[string]any
	if err := decoder.Decode(&all); err != nil {
		return nil, nil, fmt.Errorf("read document: %w", err)
	}
	for _, f := range t.Fields {
		for _, v := range values(at(all, f.Path)) {
			if f.Kind == query.Text {
				fields[f.Path] += texts([]string{v})
			} else {
				terms = append(terms, term(f.Path, v))
			}
		}
	}
	return terms, fields, nil
}

// at is what a document has at a path.
func at(object map[string]any, path string) any {
	name, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		return object[name]
	}
	inner, _ := object[name].(map[string]any)
	return at(inner, rest)
}

func values(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case json.Number:
		return []string{v.String()}
	case bool:
		return []string{strconv.FormatBool(v)}
	case []any:
		var out []string
		for _, v := range v {
			out = append(out, values(v)...)
		}
		return out
	default:
		return nil
	}
}

const (
	maxVector    = 1_000_000 // bytes of lexemes and positions; PostgreSQL takes 1,048,575
	maxPosition  = 16_383
	maxPositions = 4 // of a lexeme; more hardly make it rank higher
)

// vector spells a tsvector: each word with its first positions, those of the title
// with weight A. If these do not fit they are left out, and then words, which only
// happens to texts of characters that stand for many others.
func vector(b body) (text string, partial bool) {
	positions := map[string][]string{}
	place, size := 0, 0
	add := func(word, weight string) {
		place++
		at, known := positions[word]
		if !known {
			size += len(word) + 4
			positions[word] = nil
		}
		if len(at) < maxPositions {
			positions[word] = append(at, strconv.Itoa(min(place, maxPosition))+weight)
			size += 2
		}
	}
	for word := range strings.FieldsSeq(b.TitleWords) {
		add(word, "A")
	}
	for _, words := range b.Words {
		for word := range strings.FieldsSeq(words) {
			add(word, "")
		}
		place += 10 // words of two texts are not near
	}
	for _, words := range b.LabelWords {
		for word := range strings.FieldsSeq(words) {
			add(labelWord(word), "")
		}
	}
	return spell(positions, size <= maxVector)
}

// labelWord is a word of a label, as a lexeme.
func labelWord(word string) string { return "label=" + word }

func spell(positions map[string][]string, places bool) (text string, partial bool) {
	var b strings.Builder
	size := 0
	for _, word := range slices.Sorted(maps.Keys(positions)) {
		if !places {
			if size += len(word); size > maxVector {
				return b.String(), true
			}
		}
		b.WriteString(lexeme(word))
		if places {
			b.WriteByte(':')
			b.WriteString(strings.Join(positions[word], ","))
		}
		b.WriteByte(' ')
	}
	return b.String(), false
}

// lexeme quotes a word, which has neither quote nor backslash: see [query.Scan].
func lexeme(word string) string { return "'" + word + "'" }

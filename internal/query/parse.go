package query

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Clause is one condition on a record.
type Clause struct {
	Not bool
	// Field is empty for all text of a record, or a field's path. Kinds is how its
	// values are compared; a record matches by any of them.
	Field string
	Kinds []Kind
	// Words follow one another in the text; the last may be the Prefix of one.
	Words  []string
	Prefix bool
	// Values are what a Term, Number or Flag can be: any of them. Languages are in lower
	// case, types are collections.
	Values []string
	// Range is what a Number has to be in, in place of Values.
	Range *Range
	// Or is another condition that is enough.
	Or *Clause
}

// Is tells whether the field's values are compared in that way.
func (c Clause) Is(kind Kind) bool { return slices.Contains(c.Kinds, kind) }

// Parse understands what a user typed:
//
//	word            records with this word, whatever its case and accents
//	beginning*      with a word that begins so
//	"two words"     with these words one after the other
//	field:value     whose field has this value; quote one with spaces
//	field>8         whose field is a number above 8; also >=, < and <=
//	lang:yo         in this language, or a narrower one
//	confidence>800  with an annotation of which this holds; see [AnnotationField]
//	-clause         without it
//
// Everything must hold. A word that has several parts, such as well-known, is a
// phrase. Errors are [*SyntaxError].
func Parse(schema *Schema, text string) ([]Clause, error) {
	if len(text) > MaxText {
		return nil, wrong(text, 0, "ask for less", "the query has %d bytes, of %d at most", len(text), MaxText)
	}
	if !utf8.ValidString(text) {
		return nil, wrong(text, 0, "send it as UTF-8, percent-encoded", "the query is not valid UTF-8")
	}
	p := &parser{schema: schema, text: text}
	var clauses []Clause
	for p.space(); p.pos < len(text); p.space() {
		if len(clauses) == MaxClauses {
			return nil, wrong(text, p.pos, "leave some out", "the query has more than %d parts", MaxClauses)
		}
		c, err := p.clause()
		if err != nil {
			return nil, err
		}
		clauses = append(clauses, c)
	}
	return clauses, nil
}

type parser struct {
	schema *Schema
	text   string
	pos    int
}

func (p *parser) space() {
	for p.pos < len(p.text) {
		r, n := utf8.DecodeRuneInString(p.text[p.pos:])
		if !unicode.IsSpace(r) {
			return
		}
		p.pos += n
	}
}

func (p *parser) clause() (c Clause, err error) {
	start := p.pos
	if p.text[p.pos] == '-' {
		c.Not = true
		p.pos++
	}
	name, operator := p.name()
	if operator != "" {
		c.Field, c.Kinds = p.schema.field(name)
		switch {
		case len(c.Kinds) == 0:
			return c, wrong(p.text, start, `use one of `+p.schema.fields()+`, or put it in quotes ("`+name+operator+`...") to look for the words`, "there is no field %q", name)
		case operator != ":" && !c.Is(Number):
			return c, wrong(p.text, start, "write "+name+":value", "%s is no number, which %s compares", name, operator)
		case c.Not && annotationField(c.Field):
			return c, wrong(p.text, start, "ask for the opposite, as confidence<=800 for -confidence>800", "a minus before %s cannot be answered", name)
		}
	}
	at := p.pos
	value, quoted, err := p.value()
	if err != nil {
		return c, err
	}
	complain := func(remedy, problem string, args ...any) error { return wrong(p.text, at, remedy, problem, args...) }
	switch {
	case value == "" && c.Field != "":
		return c, wrong(p.text, at, "write "+c.Field+operator+"value without a space between", "%s has no value", c.Field)
	case value == "" && c.Not:
		return c, wrong(p.text, start, "write -word without a space between", "nothing follows the minus")
	}
	if operator != "" && operator != ":" || c.Field == ConfidenceField {
		return c.compareNumber(operator, value, complain)
	}
	return p.schema.compare(c, value, quoted, complain)
}

// name reads a field and what it is compared by, if those come next: a colon, or an
// operator for numbers.
func (p *parser) name() (name, operator string) {
	rest := p.text[p.pos:]
	end := strings.IndexFunc(rest, func(r rune) bool {
		return r != '_' && r != '.' && (r >= utf8.RuneSelf || !unicode.IsLetter(r) && !unicode.IsDigit(r))
	})
	if end <= 0 {
		return "", ""
	}
	for _, operator := range []string{":", ">=", "<=", ">", "<"} {
		if strings.HasPrefix(rest[end:], operator) {
			p.pos += end + len(operator)
			return rest[:end], operator
		}
	}
	return "", ""
}

// value reads a word up to the next space, or what is in quotes.
func (p *parser) value() (value string, quoted bool, err error) {
	rest := p.text[p.pos:]
	if !strings.HasPrefix(rest, `"`) {
		end := strings.IndexFunc(rest, unicode.IsSpace)
		if end < 0 {
			end = len(rest)
		}
		p.pos += end
		return rest[:end], false, nil
	}
	value, _, closed := strings.Cut(rest[1:], `"`)
	if !closed {
		return "", true, wrong(p.text, p.pos, `close it with another "`, "the quote is not closed")
	}
	if value == "" {
		return "", true, wrong(p.text, p.pos, "write words between the quotes", "the quotes are empty")
	}
	p.pos += len(value) + 2
	return value, true, nil
}

// compare completes a clause with what it compares with.
func (s *Schema) compare(c Clause, value string, quoted bool, wrong func(remedy, problem string, args ...any) error) (Clause, error) {
	if c.Field == "" {
		c.Kinds = []Kind{Text}
	}
	var left []Kind
	for _, kind := range c.Kinds {
		switch kind {
		case Text:
			text, prefix := strings.CutSuffix(value, "*")
			c.Words, c.Prefix = Words(text), prefix && !quoted
			if len(c.Words) > MaxWords {
				return c, wrong("shorten it", "it has more than %d words", MaxWords)
			}
			if len(c.Words) == 0 {
				continue
			}
		case Number:
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				continue
			}
			c.Values = append(c.Values, strconv.FormatInt(n, 10))
		case Flag:
			if value != "true" && value != "false" {
				continue
			}
			c.Values = append(c.Values, value)
		case Term:
			values := s.terms(c.Field, value)
			if len(values) == 0 {
				return c, wrong("use one of "+strings.Join(texts(s.Collections()), ", ")+", or the end of one", "there is no type %q to search", value)
			}
			c.Values = append(c.Values, values...)
		}
		left = append(left, kind)
	}
	if len(left) == 0 {
		return c, wrong(remedies[c.Kinds[0]], "%q is nothing to look for", value)
	}
	c.Kinds = left
	slices.Sort(c.Values)
	c.Values = slices.Compact(c.Values)
	return c, nil
}

var remedies = map[Kind]string{
	Text: "use letters or digits", Number: "use a whole number", Flag: "use true or false",
}

// terms are the values that a user's value stands for.
func (s *Schema) terms(field, value string) []string {
	switch field {
	case LanguageField:
		return []string{strings.ToLower(value)}
	case TypeField:
		return texts(s.named(value))
	default:
		return []string{value}
	}
}

func texts(list []syntax.NSID) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}

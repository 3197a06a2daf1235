package xrpc

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/catalog"
)

// Endpoint is one query of the catalog, made ready to be asked.
type Endpoint struct {
	query *catalog.Query
	param map[string]int // name to position in query.Params
}

// NewEndpoint makes a query ready.
func NewEndpoint(q *catalog.Query) *Endpoint {
	ep := &Endpoint{query: q, param: make(map[string]int, len(q.Params))}
	for i, p := range q.Params {
		ep.param[p.Name] = i
	}
	return ep
}

// Arguments are the parameters of one request, checked against the lexicon:
// for each parameter of the query, in its order, the values given.
type Arguments struct {
	ep    *Endpoint
	given [][]string
}

// Parse checks a raw query string. Its errors are InvalidRequest and name the
// parameter and what the lexicon expects of it. Parameters that the lexicon does
// not know are passed over, since clients send some of their own.
func (ep *Endpoint) Parse(raw string) (Arguments, error) {
	args := Arguments{ep: ep, given: make([][]string, len(ep.query.Params))}
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		if err := args.add(pair); err != nil {
			return Arguments{}, err
		}
	}
	for i, p := range ep.query.Params {
		if p.Required && len(args.given[i]) == 0 {
			return Arguments{}, InvalidRequest("parameter %q is required: expected %s", p.Name, expected(p))
		}
	}
	return args, nil
}

// add takes one name=value of the query string.
func (a *Arguments) add(pair string) error {
	rawName, rawValue, _ := strings.Cut(pair, "=")
	name, err := url.QueryUnescape(rawName)
	if err != nil {
		return InvalidRequest("parameter name %s: malformed percent-encoding", Quote(rawName))
	}
	value, err := url.QueryUnescape(rawValue)
	if err != nil {
		return InvalidRequest("parameter %s: malformed percent-encoding in %s", Quote(name), Quote(rawValue))
	}
	i, known := a.ep.param[name]
	if !known {
		return nil
	}
	p := a.ep.query.Params[i]
	if len(a.given[i]) > 0 && !p.Repeated {
		return InvalidRequest("parameter %q: expected once, was given more than once", name)
	}
	value, ok := checked(p, value)
	if !ok {
		return InvalidRequest("parameter %q: expected %s, got %s", name, expected(p), Quote(value))
	}
	a.given[i] = append(a.given[i], value)
	return nil
}

// checked tests one value against its parameter's type, format and bounds, and
// returns it in the one form that equal values have.
func checked(p catalog.Param, value string) (string, bool) {
	if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
		return value, false
	}
	switch p.Type {
	case catalog.Integer:
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || value[0] == '+' || (p.Minimum != nil && n < *p.Minimum) || (p.Maximum != nil && n > *p.Maximum) {
			return value, false
		}
		return strconv.FormatInt(n, 10), true
	case catalog.Boolean:
		return value, value == "true" || value == "false"
	}
	if p.MaxLength != nil && len(value) > *p.MaxLength || p.Enum != nil && !slices.Contains(p.Enum, value) {
		return value, false
	}
	return value, wellFormed(p.Format, value)
}

// wellFormed checks a text against a string format of the lexicon language.
func wellFormed(format, value string) bool {
	var err error
	switch format {
	case "at-uri":
		return validURI(value)
	case "at-identifier":
		_, err = syntax.ParseAtIdentifier(value)
	case "did":
		_, err = syntax.ParseDID(value)
	case "handle":
		_, err = syntax.ParseHandle(value)
	case "nsid":
		_, err = syntax.ParseNSID(value)
	case "cid":
		_, err = syntax.ParseCID(value)
	case "tid":
		_, err = syntax.ParseTID(value)
	case "record-key":
		_, err = syntax.ParseRecordKey(value)
	case "datetime":
		_, err = syntax.ParseDatetime(value)
	case "language":
		_, err = syntax.ParseLanguage(value)
	case "uri":
		_, err = syntax.ParseURI(value)
	}
	return err == nil
}

// inWords says what each string format is, to whoever got it wrong.
var inWords = map[string]string{
	"at-uri":        "an AT-URI (at://did:plc:.../collection/rkey)",
	"at-identifier": "a handle or a DID",
	"did":           "a DID (did:plc:... or did:web:...)",
	"handle":        "a handle (name.example)",
	"nsid":          "an NSID (pub.layers.corpus.corpus)",
	"cid":           "a CID",
	"tid":           "a TID",
	"record-key":    "a record key",
	"datetime":      "a date and time (2026-01-31T12:00:00Z)",
	"language":      "a BCP 47 language tag",
	"uri":           "a URI",
}

// expected says what a parameter takes.
func expected(p catalog.Param) string {
	switch {
	case p.Type == catalog.Integer && p.Minimum != nil && p.Maximum != nil:
		return fmt.Sprintf("an integer from %d to %d", *p.Minimum, *p.Maximum)
	case p.Type == catalog.Integer:
		return "an integer"
	case p.Type == catalog.Boolean:
		return "true or false"
	case p.Enum != nil:
		return "one of " + strings.Join(p.Enum, ", ")
	case inWords[p.Format] != "":
		return inWords[p.Format]
	case p.MaxLength != nil:
		return fmt.Sprintf("UTF-8 text of at most %d bytes without NUL", *p.MaxLength)
	}
	return "UTF-8 text without NUL"
}

// Quote shows a client's value back to it, cut short and with nothing unprintable.
func Quote(value string) string {
	const most = 80
	if len(value) > most {
		return fmt.Sprintf("%+q...", value[:most])
	}
	return fmt.Sprintf("%+q", value)
}

// Texts are the values of a parameter; none if it was not given.
func (a *Arguments) Texts(name string) []string {
	if i, ok := a.ep.param[name]; ok {
		return a.given[i]
	}
	return nil
}

// Text is the value of a parameter that may be given once.
func (a *Arguments) Text(name string) (string, bool) {
	if given := a.Texts(name); len(given) > 0 {
		return given[0], true
	}
	return "", false
}

// Canonical is the same text for the same arguments, however they were written; named
// is false where one of them names a repository by its handle, which may pass to another.
func (a *Arguments) Canonical() (text string, named bool) {
	b, named := []byte(nil), true
	for i, p := range a.ep.query.Params {
		if len(a.given[i]) == 0 {
			continue
		}
		b = append(strconv.AppendQuote(b, p.Name), '=')
		for _, value := range slices.Sorted(slices.Values(a.given[i])) {
			b = append(strconv.AppendQuote(b, value), ',')
			if rest, ok := strings.CutPrefix(value, "at://"); ok && !strings.HasPrefix(rest, "did:") || p.Format == "at-identifier" && !strings.HasPrefix(value, "did:") {
				named = false
			}
		}
	}
	return string(b), named
}

// Limit is the page size asked for, or the lexicon's default.
func (a *Arguments) Limit() int {
	if text, ok := a.Text("limit"); ok {
		n, _ := strconv.Atoi(text) // parse has checked it
		return n
	}
	if i, ok := a.ep.param["limit"]; ok {
		if n, ok := a.ep.query.Params[i].Default.(int); ok {
			return n
		}
	}
	return defaultLimit
}

const defaultLimit = 50 // of a list whose lexicon names none

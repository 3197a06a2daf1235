package rest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/appview/traffic"
	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/catalog"
)

// Route is a row of the table: one GET endpoint.
type Route struct {
	// Path is under [Prefix], with the names of path parameters in braces:
	// /expressions/{uri}/full. Each of those is in Params too. More specific paths win.
	Path string
	ID   string // names the operation in the OpenAPI document; unique
	Tag  string // what the operation is listed under
	// Summary is a line; Description what else a client has to know, in Markdown.
	Summary, Description string
	Params               []Param
	Answer               Answer
	Handler              Handler
	// Stream is set where the answer is written as it is read, for as long as that
	// takes; the handler sees to the time that it may take.
	Stream bool
	// Group is whom the route shares its limits with; by default that of its tag, and
	// Records for the tags of record types.
	Group traffic.Group
	// Cache lets the answer be given again to who asks the same.
	Cache Cache

	collection syntax.NSID // of the records that it lists, if any
	endpoint   *xrpc.Endpoint
}

// Handler answers a request whose parameters hold. What it returns as an error is
// answered by [xrpc.ErrorHandler]: an *xrpc.Error as it says, the end of the context
// or a store out of reach with 503, anything else with 500.
type Handler func(*Call) error

// Param is a parameter of the path or of the query string. What is not among a
// route's parameters is refused, so that a misspelt filter is not a missing one.
type Param struct {
	catalog.Param
	InPath  bool // it is in braces in the route's path
	Example string
}

// Answer describes a 200.
type Answer struct {
	Description string
	// Schema is JSON Schema as OpenAPI 3.1 has it. Name it with [Named] to have it
	// among the document's components.
	Schema  Schema
	Example any
	// Lines is set where the answer is one JSON object of this schema a line; with
	// Schema as well, where Accept: application/x-ndjson makes it so.
	Lines Schema
	// Events is set where the answer is server-sent events whose data are JSON of this schema.
	Events Schema
}

// Schema is a JSON Schema.
type Schema map[string]any

// Text is an optional parameter of the query string that is any text of up to 512 bytes.
func Text(name, description, example string) Param {
	most := 512
	return Param{Param: catalog.Param{Name: name, Type: catalog.String, MaxLength: &most, Description: description}, Example: example}
}

// Choice is an optional parameter that takes one of some words.
func Choice(name, description string, words ...string) Param {
	return Param{Param: catalog.Param{Name: name, Type: catalog.String, Enum: words, Default: words[0], Description: description}, Example: words[0]}
}

// Number is an optional integer parameter between two bounds.
func Number(name, description string, least, most, standard int) Param {
	low, high := int64(least), int64(most)
	return Param{
		Param:   catalog.Param{Name: name, Type: catalog.Integer, Minimum: &low, Maximum: &high, Default: standard, Description: description},
		Example: fmt.Sprint(standard),
	}
}

// Flag is an optional parameter that is true or false, and false by itself.
func Flag(name, description string) Param {
	return Param{Param: catalog.Param{Name: name, Type: catalog.Boolean, Default: false, Description: description}, Example: "true"}
}

// Formatted is an optional parameter of one of the lexicons' string formats: at-uri,
// did, at-identifier, nsid, ...
func Formatted(name, format, description, example string) Param {
	return Param{Param: catalog.Param{Name: name, Type: catalog.String, Format: format, Description: description}, Example: example}
}

// URI is the path parameter that names one record.
func URI(description string) Param {
	p := Formatted("uri", "at-uri", description+" An AT-URI, percent-encoded: %2F for each slash. Its repository may be given by handle.", exampleURI("pub.layers.expression.expression"))
	p.InPath, p.Required = true, true
	return p
}

// Limit is the size of a page.
func Limit(most, standard int) Param {
	return Number("limit", "How many to answer with at most. Large records may make a page shorter.", 1, most, standard)
}

// Cursor is the parameter that continues a list.
func Cursor() Param {
	most := maxCursor
	return Param{Param: catalog.Param{
		Name: "cursor", Type: catalog.String, MaxLength: &most,
		Description: "Where the page begins: the cursor of the page before, with the same other parameters.",
	}}
}

// Required makes a parameter required.
func Required(p Param) Param { p.Required, p.Default = true, nil; return p }

// Repeated makes a parameter one that may be given more than once.
func Repeated(p Param) Param { p.Repeated, p.Default = true, nil; return p }

const maxCursor = 4096 // bytes; no position in a list of records takes more

// exampleURI is an AT-URI for examples.
func exampleURI(collection syntax.NSID) string {
	return "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/" + string(collection) + "/3lwafzkjqm25s"
}

// prepared makes the table ready to serve, and insists that its rows agree.
func prepared(table []Route) []Route {
	paths, ids := map[string]bool{}, map[string]bool{}
	for i := range table {
		r := &table[i]
		if paths[r.Path] || ids[r.ID] || r.ID == "" || r.Handler == nil {
			panic(fmt.Sprintf("rest: route %s (%s) is there twice, or lacks its name or handler", r.Path, r.ID))
		}
		paths[r.Path], ids[r.ID] = true, true
		if err := r.check(); err != nil {
			panic(fmt.Sprintf("rest: route %s: %v", r.Path, err))
		}
		query := &catalog.Query{NSID: syntax.NSID("rest." + r.ID), Collection: r.collection}
		for _, p := range r.Params {
			query.Params = append(query.Params, p.Param)
		}
		r.endpoint = xrpc.NewEndpoint(query)
		if r.Group == "" {
			r.Group = groupOf(r)
		}
	}
	return table
}

// groupOf is the group of a route that does not say.
func groupOf(r *Route) traffic.Group {
	if r.Stream {
		return traffic.Streams
	}
	if group := traffic.Group(r.Tag); slices.Contains(traffic.Groups, group) {
		return group
	}
	return traffic.Records
}

// check compares a route's path with its parameters.
func (r *Route) check() error {
	seen := map[string]bool{}
	for _, p := range r.Params {
		if seen[p.Name] {
			return fmt.Errorf("parameter %s is there twice", p.Name)
		}
		seen[p.Name] = true
		if p.InPath != strings.Contains(r.Path, "{"+p.Name+"}") {
			return fmt.Errorf("parameter %s and the path do not agree", p.Name)
		}
	}
	for _, name := range r.pathNames() {
		if !seen[name] {
			return fmt.Errorf("no parameter describes {%s}", name)
		}
	}
	return nil
}

// pathNames are the names in braces.
func (r *Route) pathNames() (names []string) {
	for segment := range strings.SplitSeq(r.Path, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			names = append(names, strings.TrimSuffix(name, "}"))
		}
	}
	return names
}

// Pattern is the path as the router has it, with [Prefix].
func (r *Route) Pattern() string {
	path := strings.ReplaceAll(r.Path, "{", ":")
	return Prefix + strings.ReplaceAll(path, "}", "")
}

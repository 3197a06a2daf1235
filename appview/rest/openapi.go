package rest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/layers-pub/layers-appview/appview/live"
	"github.com/layers-pub/layers-appview/internal/catalog"
)

// Document is the OpenAPI 3.1 document of the whole interface: the table, and the
// XRPC queries that the catalog has. It is the same text for the same table.
func (s *Service) Document() ([]byte, error) {
	d := &document{components: map[string]any{}}
	paths := map[string]any{}
	for i := range s.routes {
		r := &s.routes[i]
		paths[Prefix+r.Path] = map[string]any{"get": d.operation(r)}
	}
	for _, q := range s.xrpc.Answered() {
		paths["/xrpc/"+string(q.NSID)] = map[string]any{"get": d.query(q)}
	}
	if s.live != nil {
		paths["/xrpc/"+live.Method] = map[string]any{"get": d.subscription()}
	}
	d.component("Error", errorSchema())
	d.component("XRPCError", Object(map[string]Schema{
		"error": String("What a program tests for."), "message": String("What a person reads."),
	}))
	all := map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{
			"title": "Layers appview", "version": s.version,
			"description": description,
			"license":     map[string]any{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"servers":    []any{map[string]any{"url": "/", "description": "This appview."}},
		"tags":       s.tags(),
		"security":   []any{},
		"paths":      paths,
		"components": map[string]any{"schemas": d.components, "responses": d.responses()},
	}
	text, err := json.Marshal(all)
	if err != nil {
		return nil, fmt.Errorf("encode the OpenAPI document: %w", err)
	}
	return text, nil
}

const description = `An index of the linguistic annotation (` + "`pub.layers.*`" + `) that people publish on the AT Protocol network.

Everything is read by GET. AT-URIs in paths are percent-encoded. Lists are newest first; ` + "`cursor`" + ` continues one, and is absent on the last page. ` +
	`Parameters that an endpoint does not have are refused under ` + "`/api/v1`" + ` and ignored under ` + "`/xrpc`" + `. ` +
	`Every answer has an ` + "`X-Request-Id`" + `; errors name it too. Answers are compressed with zstd or gzip for whoever accepts it.`

// tags are what operations are listed under, in the table's order.
func (s *Service) tags() []any {
	var tags []any
	seen := map[string]bool{}
	add := func(name, description string) {
		if !seen[name] {
			seen[name] = true
			tags = append(tags, map[string]any{"name": name, "description": description})
		}
	}
	for i := range s.routes {
		r := &s.routes[i]
		text := "Endpoints of " + r.Tag + "."
		for _, t := range s.types {
			if t.name == r.Tag {
				text = t.collection.Description
			}
		}
		add(r.Tag, text)
	}
	add("xrpc", "The queries of the lexicons, as AT Protocol clients ask them.")
	return tags
}

// document is the OpenAPI document under construction.
type document struct {
	components map[string]any
}

func (d *document) operation(r *Route) map[string]any {
	op := map[string]any{
		"operationId": r.ID, "summary": r.Summary, "tags": []string{r.Tag},
		"responses": d.answers(d.content(&r.Answer), r.Answer.Description, r),
	}
	if r.Description != "" {
		op["description"] = r.Description
	}
	var params []any
	for i := range r.Params {
		params = append(params, d.parameter(&r.Params[i]))
	}
	if params != nil {
		op["parameters"] = params
	}
	return op
}

// content is the body of a 200, by media type.
func (d *document) content(a *Answer) map[string]any {
	content := map[string]any{}
	if a.Schema != nil {
		content["application/json"] = d.media(a.Schema, a.Example)
	}
	if a.Lines != nil {
		content[mediaLines] = d.media(a.Lines, map[string]any{"end": "complete", "records": 0})
	}
	if a.Events != nil {
		one := Object(map[string]Schema{
			"id":   String("The cursor."),
			"data": {"type": "string", "description": "JSON.", "contentMediaType": "application/json", "contentSchema": a.Events},
		})
		one["description"] = "One event; the answer has any number."
		content[live.MediaEvents] = map[string]any{"schema": d.resolve(one)}
	}
	return content
}

func (d *document) media(s Schema, example any) map[string]any {
	media := map[string]any{"schema": d.resolve(s)}
	if example != nil {
		media["example"] = example
	}
	return media
}

func (d *document) answers(content map[string]any, text string, r *Route) map[string]any {
	answers := map[string]any{
		"200": map[string]any{
			"description": text, "content": content,
			"headers": map[string]any{"X-Request-Id": map[string]any{"description": "Names the request in the server's log.", "schema": Schema{"type": "string"}}},
		},
		"default": map[string]any{"$ref": "#/components/responses/Error"},
	}
	for _, status := range []string{"400", "401", "429", "503"} {
		answers[status] = map[string]any{"$ref": "#/components/responses/Error"}
	}
	answers["431"] = map[string]any{"$ref": "#/components/responses/TooLong"}
	if slices.ContainsFunc(r.Params, func(p Param) bool { return p.InPath }) {
		answers["404"] = map[string]any{"$ref": "#/components/responses/Error"}
		answers["304"] = map[string]any{"description": "The client has the present state already, as `If-None-Match` says."}
	}
	return answers
}

func (d *document) responses() map[string]any {
	of := func(text, schema string) map[string]any {
		return map[string]any{
			"description": text,
			"content":     map[string]any{"application/json": map[string]any{"schema": map[string]any{"$ref": "#/components/schemas/" + schema}}},
		}
	}
	return map[string]any{
		"Error": of("400: the request is wrong, and `message` says where. 401: the token in `Authorization` does not hold. 404: there is no such record or path. 429: more requests in a minute than your tier has. 503: a store does not answer, or too many requests are under way; `Retry-After` says when to ask again.", "Error"),
		"TooLong": map[string]any{
			"description": "The address and the header have more than 64 KiB together. It is said before the request is read, and so without a body in JSON.",
			"content":     map[string]any{"text/plain": map[string]any{"schema": Schema{"type": "string"}}},
		},
		"XRPCError": of("The request is wrong, or what it asks for is not there: `error` says which.", "XRPCError"),
	}
}

func errorSchema() Schema {
	return Object(map[string]Schema{
		"error":     String("What a program tests for: InvalidRequest, RecordNotFound, ServiceUnavailable, ..."),
		"message":   String("What a person reads."),
		"requestId": String("Names the request in the server's log."),
	})
}

func (d *document) parameter(p *Param) map[string]any {
	schema := Schema{"type": string(p.Type)}
	if p.Type == catalog.String && p.Format != "" {
		schema["format"] = formatName(p.Format)
	}
	put(schema, "minimum", p.Minimum)
	put(schema, "maximum", p.Maximum)
	put(schema, "maxLength", p.MaxLength)
	if p.Enum != nil {
		schema["enum"] = p.Enum
	}
	if p.KnownValues != nil {
		schema["examples"] = p.KnownValues
	}
	if p.Default != nil {
		schema["default"] = p.Default
	}
	out := map[string]any{"name": p.Name, "in": "query", "required": p.Required, "description": p.Description}
	if p.InPath {
		out["in"] = "path"
	}
	if p.Repeated {
		schema = Schema{"type": "array", "items": schema}
		out["style"], out["explode"] = "form", true
	}
	out["schema"] = schema
	if p.Example != "" {
		out["example"] = p.example()
	}
	return out
}

// example is the example in the parameter's own type.
func (p *Param) example() any {
	var v any = p.Example
	if p.Type != catalog.String {
		if err := json.Unmarshal([]byte(p.Example), &v); err != nil {
			v = p.Example
		}
	}
	if p.Repeated {
		return []any{v}
	}
	return v
}

// query is the operation of an XRPC query.
func (d *document) query(q *catalog.Query) map[string]any {
	errorsText := "InvalidRequest"
	if len(q.Errors) > 0 {
		errorsText += ", " + strings.Join(q.Errors, ", ")
	}
	content := map[string]any{}
	if q.Output != nil {
		content["application/json"] = d.media(typeSchema(q.Output), exampleValue(q.Output, 0))
	}
	var params []any
	for _, p := range q.Params {
		params = append(params, d.parameter(&Param{Param: p, Example: xrpcExample(q, p)}))
	}
	return map[string]any{
		"operationId": string(q.NSID), "summary": firstSentence(q.Description), "description": q.Description + "\n\nErrors: " + errorsText + ".",
		"tags": []string{"xrpc"}, "parameters": params,
		"responses": map[string]any{
			"200":     map[string]any{"description": "The answer, as its lexicon has it.", "content": content},
			"400":     map[string]any{"$ref": "#/components/responses/XRPCError"},
			"401":     map[string]any{"$ref": "#/components/responses/XRPCError"},
			"429":     map[string]any{"$ref": "#/components/responses/XRPCError"},
			"431":     map[string]any{"$ref": "#/components/responses/TooLong"},
			"default": map[string]any{"$ref": "#/components/responses/XRPCError"},
		},
	}
}

func xrpcExample(q *catalog.Query, p catalog.Param) string {
	if p.Name == "cursor" {
		return ""
	}
	if p.Name == "uri" && q.Collection != "" {
		return exampleURI(q.Collection)
	}
	if n, ok := p.Default.(int); ok {
		return fmt.Sprint(n)
	}
	return exampleOf(p)
}

func firstSentence(text string) string {
	first, _, _ := strings.Cut(text, ". ")
	return strings.TrimSuffix(first, ".")
}

func (d *document) component(name string, s Schema) { d.components[name] = d.resolve(s) }

// resolve writes a schema out: components are put aside, each once, and referred to.
func (d *document) resolve(v any) any {
	switch v := v.(type) {
	case Schema:
		return d.resolveSchema(v)
	case map[string]Schema:
		out := map[string]any{}
		for name, s := range v {
			out[name] = d.resolve(s)
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for name, s := range v {
			out[name] = d.resolve(s)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = d.resolve(v[i])
		}
		return out
	}
	return v
}

func (d *document) resolveSchema(s Schema) any {
	if lexicon, ok := s[lexiconKey].(*catalog.Schema); ok {
		return d.resolve(plainSchema(lexicon))
	}
	name, ok := s[namedKey].(string)
	if !ok {
		return d.resolve(map[string]any(maps.Clone(s)))
	}
	name = strings.ReplaceAll(name, "#", ".")
	if _, there := d.components[name]; !there {
		d.components[name] = nil // there before its contents are, for recursion
		d.components[name] = d.resolve(s[schemaKey])
	}
	return map[string]any{"$ref": "#/components/schemas/" + name}
}

package rest

import (
	"github.com/layers-pub/layers-appview/appview/live"
	"github.com/layers-pub/layers-appview/internal/catalog"
)

func (s *Service) eventRoutes() []Route {
	if s.live == nil {
		return nil
	}
	params := exampled(live.Params())
	wait := Flag("wait", "false: what there is at present, and then the end, in place of waiting for more.")
	wait.Default = true
	return []Route{{
		Path: "/events", ID: "events", Tag: "events", Stream: true,
		Summary: "What changes in the index, as it happens",
		Description: "Server-sent events, in the order of the index. The data of each is a JSON object whose `kind` says what it is: record (create, update or delete, by `action`), account (its `active` is another now; " +
			"while it is false, nothing of that repository is in any answer), info (OutdatedCursor: events behind the cursor are not kept any more; GoingAway: this server is about to stop) or error (ConsumerTooSlow), after which the stream ends. " +
			"The id of each is its cursor, which holds at every replica; a browser that connects again sends it as `Last-Event-ID`, which counts more than `cursor`. Events without data move the id alone. " +
			"The same over a WebSocket: `/xrpc/" + live.Method + "`.",
		Params:  append(params, wait),
		Answer:  Answer{Description: "Server-sent events.", Events: eventSchema()},
		Handler: func(c *Call) error { return s.live.ServeEvents(c.Context, c.Arguments, !c.given("wait", "false")) },
	}}
}

// given tells whether a parameter was given with a value.
func (c *Call) given(name, value string) bool {
	text, ok := c.Text(name)
	return ok && text == value
}

// eventSchema is what the data of an event may be.
func eventSchema() Schema {
	return Named("Event", Object(map[string]Schema{
		"kind":        {"type": "string", "enum": []string{"record", "account", "info", "error", "position"}},
		"cursor":      Integer("Where to go on after this event."),
		"time?":       {"type": "string", "format": "date-time", "description": "When the index took the change in."},
		"action?":     {"type": "string", "enum": []string{"create", "update", "delete"}},
		"uri?":        uriSchema("The record."),
		"cid?":        String("Of the record; absent after delete."),
		"collection?": String("Of the record."),
		"did?":        String("The repository."),
		"active?":     Boolean("Of an account: whether its records are to be seen."),
		"status?":     String("Of an account."),
		"value?":      {"type": "object", "description": "The record, where asked for."},
		"name?":       String("Of an info."),
		"error?":      String("Of an error: what a program tests for."),
		"message?":    String("What a person reads."),
	}))
}

// subscription is the operation of the WebSocket.
func (d *document) subscription() map[string]any {
	var params []any
	for _, p := range exampled(live.SocketParams()) {
		params = append(params, d.parameter(&p))
	}
	return map[string]any{
		"operationId": live.Method, "summary": "What changes in the index, over a WebSocket", "tags": []string{"xrpc"}, "parameters": params,
		"description": "An XRPC subscription: binary frames of two DAG-CBOR objects, of which the first says by `t` (#record, #account, #info, #position) or `op: -1` what the second is. " +
			"With `format=json`, text frames like the data of the server-sent events of `" + Prefix + "/events`.\n\nErrors: FutureCursor, ConsumerTooSlow.",
		"responses": map[string]any{
			"101":     map[string]any{"description": "The connection is a WebSocket now."},
			"400":     map[string]any{"$ref": "#/components/responses/XRPCError"},
			"426":     map[string]any{"$ref": "#/components/responses/XRPCError"},
			"431":     map[string]any{"$ref": "#/components/responses/TooLong"},
			"default": map[string]any{"$ref": "#/components/responses/XRPCError"},
		},
	}
}

// exampled gives the parameters of events their examples.
func exampled(params []catalog.Param) (all []Param) {
	examples := map[string]string{
		"collection": "pub.layers.annotation.annotationLayer", "include": "none", "format": "json",
		"repo": "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "target": exampleURI("pub.layers.expression.expression"),
	}
	for _, p := range params {
		all = append(all, Param{Param: p, Example: examples[p.Name]})
	}
	return all
}

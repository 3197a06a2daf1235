package task

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Queue is a class of urgency. Within a target, a task of a higher queue always
// goes before one of a lower.
type Queue string

// The queues, most urgent first.
const (
	High        Queue = "high"
	Medium      Queue = "medium"
	Low         Queue = "low"
	Maintenance Queue = "maintenance" // rebuilds: whatever is live goes first
)

var queues = []Queue{High, Medium, Low, Maintenance}

// priorities are in the form of asynq: the greater the number, the more urgent.
var priorities = map[Queue]int{High: 4, Medium: 3, Low: 2, Maintenance: 1}

var namespaceQueues = map[string]Queue{
	"expression": High, "segmentation": High, "annotation": High,
	"ontology": Medium, "corpus": Medium, "resource": Medium, "judgment": Medium,
	"alignment": Medium, "graph": Medium, "changelog": Medium,
	"persona": Low, "media": Low, "eprint": Low,
}

// QueueOf is the queue for live changes in a collection: by the namespace in
// pub.layers.<namespace>.<name>, and Low for every other collection.
func QueueOf(collection syntax.NSID) Queue {
	rest, ok := strings.CutPrefix(string(collection), "pub.layers.")
	if !ok {
		return Low
	}
	namespace, _, _ := strings.Cut(rest, ".")
	if q, ok := namespaceQueues[namespace]; ok {
		return q
	}
	return Low
}

// name is the queue's name in Redis. Each target has queues of its own, so that
// one which is down holds up no other.
func (q Queue) name(target record.Target) string { return string(target) + ":" + string(q) }

// maxRetry lets asynq repeat a task whose worker died as often as it takes: what
// asynq gives up it archives, and our tasks are kept by the outbox, not by Redis.
const maxRetry = 1000

// taskType is the name under which asynq knows the one kind of task there is.
const taskType = "project"

// payload is a task's content: which records to bring up to date, where. It
// never carries a record's value.
type payload struct {
	Target record.Target `json:"target"`
	Rows   []row         `json:"rows"`
	// Traces are the traces that the task goes on with, as W3C traceparents.
	Traces []string `json:"traces,omitempty"`
}

type row struct {
	ID      int64  `json:"id"`
	URI     string `json:"uri"`
	Version int64  `json:"version"`
}

func encodePayload(target record.Target, pending []record.Pending, traces []string) ([]byte, error) {
	p := payload{Target: target, Traces: traces, Rows: make([]row, len(pending))}
	for i, r := range pending {
		p.Rows[i] = row{ID: r.ID, URI: r.Key.String(), Version: r.Version}
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding task for %s: %w", target, err)
	}
	return raw, nil
}

func decodePayload(raw []byte) (target record.Target, pending []record.Pending, traces []string, err error) {
	var p payload
	if err := json.Unmarshal(raw, &p); err != nil {
		return "", nil, nil, fmt.Errorf("decoding task: %w", err)
	}
	pending = make([]record.Pending, len(p.Rows))
	for i, r := range p.Rows {
		key, err := record.ParseKey(syntax.ATURI(r.URI))
		if err != nil {
			return "", nil, nil, fmt.Errorf("decoding task: %w", err)
		}
		pending[i] = record.Pending{ID: r.ID, Key: key, Version: r.Version}
	}
	return p.Target, pending, p.Traces, nil
}

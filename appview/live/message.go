package live

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"

	"github.com/layers-pub/layers-appview/internal/store"
)

// message is what a client is sent as JSON, for each kind with the fields that it has.
type message struct {
	Kind       string          `json:"kind"` // record, account, info, error, position
	Cursor     int64           `json:"cursor"`
	Time       string          `json:"time,omitempty"`
	Action     string          `json:"action,omitempty"`
	URI        string          `json:"uri,omitempty"`
	CID        string          `json:"cid,omitempty"`
	Collection string          `json:"collection,omitempty"`
	DID        string          `json:"did,omitempty"`
	Active     *bool           `json:"active,omitempty"`
	Status     string          `json:"status,omitempty"`
	Value      json.RawMessage `json:"value,omitempty"`
	Name       string          `json:"name,omitempty"`  // of an info
	Error      string          `json:"error,omitempty"` // name of an error
	Message    string          `json:"message,omitempty"`
}

// Kinds of messages.
const (
	kindRecord   = "record"
	kindAccount  = "account"
	kindInfo     = "info"
	kindError    = "error"
	kindPosition = "position"
)

func messageOf(e *store.Event, value json.RawMessage) message {
	m := message{Kind: kindRecord, Cursor: e.Cursor, Time: e.Time.UTC().Format(time.RFC3339Nano), DID: string(e.Key.DID)}
	if e.OfAccount() {
		m.Kind, m.Active, m.Status = kindAccount, &e.Active, e.Status
		return m
	}
	m.Action, m.URI, m.CID, m.Collection = string(e.Action), e.Key.String(), string(e.CID), string(e.Key.Collection)
	m.Value = value
	return m
}

func infoOf(n notice) message {
	return message{Kind: kindInfo, Name: n.Name, Message: n.Message, Cursor: n.Cursor}
}

func errorOf(n notice) message {
	return message{Kind: kindError, Error: n.Name, Message: n.Message, Cursor: n.Cursor}
}

// text is the message as JSON, on one line.
func (m *message) text() ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(m); err != nil {
		return nil, fmt.Errorf("encode an event: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// text is an event's JSON; without a value it is made once for all.
func (i *item) text(value json.RawMessage) ([]byte, error) {
	m := messageOf(&i.Event, value)
	if value != nil {
		return m.text()
	}
	var err error
	i.once.Do(func() { i.json, err = m.text() })
	return i.json, err
}

// frame is the message as a frame of an XRPC subscription: two objects in DAG-CBOR, of
// which the first says what the second is.
func (m *message) frame() ([]byte, error) {
	header, body := map[string]any{"op": int64(1), "t": "#" + m.Kind}, map[string]any{"cursor": m.Cursor}
	for name, text := range map[string]string{
		"time": m.Time, "action": m.Action, "uri": m.URI, "cid": m.CID, "collection": m.Collection, "did": m.DID,
		"status": m.Status, "name": m.Name, "error": m.Error, "message": m.Message,
	} {
		if text != "" {
			body[name] = text
		}
	}
	if m.Active != nil {
		body["active"] = *m.Active
	}
	if m.Kind == kindError {
		header = map[string]any{"op": int64(-1)}
	}
	if m.Value != nil {
		value, err := atdata.UnmarshalJSON(m.Value)
		if err != nil {
			return nil, fmt.Errorf("decode the value of %s: %w", m.URI, err)
		}
		body["value"] = value
	}
	first, err := atdata.MarshalCBOR(header)
	if err != nil {
		return nil, fmt.Errorf("encode the header of an event: %w", err)
	}
	second, err := atdata.MarshalCBOR(body)
	if err != nil {
		return nil, fmt.Errorf("encode an event: %w", err)
	}
	return append(first, second...), nil
}

package traversal

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// cursor is where a list goes on. It holds whatever store answers, though a store
// numbers edges in its own way: of several edges of one type between the same two
// nodes, some may then be repeated or left out.
type cursor struct {
	Question string   `json:"q"`           // digest of the question that it belongs to
	Node     string   `json:"n,omitempty"` // the one that was reached, where there are several
	Type     EdgeType `json:"t"`
	Far      string   `json:"f"`
	In       bool     `json:"i,omitempty"`
	Place    int64    `json:"p"`
}

// position is where one direction goes on: the edges out of the node come before
// those into it where type and far end are the same.
func (c *cursor) position(in bool) *Position {
	switch {
	case c == nil:
		return nil
	case in == c.In:
		return &Position{Type: c.Type, Far: c.Far, Place: c.Place}
	case in:
		return &Position{Type: c.Type, Far: c.Far, Place: -1} // all of the same far end are still to come
	default:
		return &Position{Type: c.Type, Far: c.Far, Place: 1<<63 - 1}
	}
}

func (c cursor) encode() string {
	encoded, _ := json.Marshal(c) // strings, a number and a boolean always encode
	return base64.RawURLEncoding.EncodeToString(encoded)
}

const maxCursor = 16 << 10 // a URI has up to 8 KB

// decodeCursor reads a cursor of the same question; nil for an empty one.
func decodeCursor(text, question string) (*cursor, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // no cursor is a valid one
	}
	var c cursor
	encoded, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(text) > maxCursor || json.Unmarshal(encoded, &c) != nil {
		return nil, invalid("cursor", "is not one that an answer gave")
	}
	if c.Question != question {
		return nil, invalid("cursor", "belongs to another question")
	}
	return &c, nil
}

// digest tells questions apart.
func digest(parts ...any) string {
	sum := sha256.Sum256(fmt.Append(nil, parts...))
	return hex.EncodeToString(sum[:6])
}

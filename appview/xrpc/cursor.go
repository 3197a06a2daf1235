package xrpc

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/store"
)

// A cursor is opaque to clients. It is base64url, without padding, of
//
//	version   1 byte
//	scope     8 bytes: which query with which filters it continues
//	sort time 8 bytes, big-endian: microseconds since 1970, signed
//	DID       1 to 2 bytes of length (uvarint), then the text
//	NSID      likewise; empty unless the list goes over several collections
//	rkey      what is left
//
// It names the last record of the page before; it is no secret, and whoever
// forges one only moves along a list that is public anyway.
const (
	cursorVersion   = 1
	cursorScopeSize = 8
	cursorHeadSize  = 1 + cursorScopeSize + 8
	maxCursorText   = 4096 // no position encodes to more: DID 2,048, NSID 317 and rkey 512 bytes
)

// scope identifies a query and its filters, but not the size of its pages.
type scope [cursorScopeSize]byte

var (
	errCursorMalformed = errors.New("malformed cursor")
	errCursorForeign   = errors.New("cursor does not belong to this query")
)

// newScope hashes the query's NSID and its filters, each a name with its values.
func newScope(query syntax.NSID, filters []filter) scope {
	sum := sha256.New()
	write := func(s string) {
		var size [4]byte
		binary.BigEndian.PutUint32(size[:], uint32(len(s)))
		sum.Write(size[:])
		sum.Write([]byte(s))
	}
	write(string(query))
	for _, f := range filters {
		write(f.name)
		write(string(rune(len(f.values))))
		for _, v := range f.values {
			write(v)
		}
	}
	return scope(sum.Sum(nil)[:cursorScopeSize])
}

func encodeCursor(s scope, at store.Position) string {
	b := make([]byte, 0, cursorHeadSize+4+len(at.DID)+len(at.Collection)+len(at.Rkey))
	b = append(b, cursorVersion)
	b = append(b, s[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(at.SortAt.UnixMicro()))
	b = binary.AppendUvarint(b, uint64(len(at.DID)))
	b = append(b, at.DID...)
	b = binary.AppendUvarint(b, uint64(len(at.Collection)))
	b = append(b, at.Collection...)
	b = append(b, at.Rkey...)
	return base64.RawURLEncoding.EncodeToString(b)
}

// decodeCursor returns the position in a cursor, or errCursorMalformed, or
// errCursorForeign for one that another query, or other filters, handed out.
func decodeCursor(text string, want scope) (store.Position, error) {
	var at store.Position
	if len(text) > maxCursorText {
		return at, errCursorMalformed
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < cursorHeadSize || b[0] != cursorVersion {
		return at, errCursorMalformed
	}
	if scope(b[1:1+cursorScopeSize]) != want {
		return at, errCursorForeign
	}
	at.SortAt = time.UnixMicro(int64(binary.BigEndian.Uint64(b[1+cursorScopeSize:]))).UTC()
	did, b, ok1 := cutText(b[cursorHeadSize:])
	collection, rkey, ok2 := cutText(b)
	if !ok1 || !ok2 || !storable(at.SortAt) {
		return at, errCursorMalformed
	}
	if at.DID, err = syntax.ParseDID(did); err != nil {
		return at, errCursorMalformed
	}
	if at.Rkey, err = syntax.ParseRecordKey(string(rkey)); err != nil {
		return at, errCursorMalformed
	}
	if collection == "" {
		return at, nil
	}
	if at.Collection, err = syntax.ParseNSID(collection); err != nil {
		return at, errCursorMalformed
	}
	return at, nil
}

// cutText splits a text, preceded by its length, from the front of b.
func cutText(b []byte) (text string, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return "", nil, false
	}
	return string(b[n : n+int(size)]), b[n+int(size):], true
}

// storable tells whether PostgreSQL can compare with t: its timestamps end at
// 4713 BC and AD 294276.
func storable(t time.Time) bool { return t.Year() > -4700 && t.Year() < 294000 }

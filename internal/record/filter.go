package record

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

const (
	maxFilterTerm  = 512 // bytes; keeps every index key far below PostgreSQL's 2,704
	hashTermPrefix = "sha256:"
)

// FilterTerm is the form in which a property's value is kept and looked up by
// list filters: the value itself, or its SHA-256 where the value is too long for
// an index key or holds a NUL, which PostgreSQL's jsonb refuses. A value that
// looks like such a hash is hashed as well, so no two values share a term.
func FilterTerm(value string) string {
	if len(value) <= maxFilterTerm && !strings.Contains(value, "\x00") && !strings.HasPrefix(value, hashTermPrefix) {
		return value
	}
	sum := sha256.Sum256([]byte(value))
	return hashTermPrefix + hex.EncodeToString(sum[:])
}

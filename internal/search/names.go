package search

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
)

const (
	maxID   = 512 // bytes that Elasticsearch takes as a document's _id
	maxSlug = 190 // bytes of a collection in an index name, which may have 255 in all
)

var prefixPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,39}$`)

func checkPrefix(prefix string) error {
	if !prefixPattern.MatchString(prefix) {
		return fmt.Errorf("elasticsearch: index prefix %q: use 1-40 of a-z 0-9 _ -, beginning with a letter or digit", prefix)
	}
	return nil
}

// Alias is the name under which a collection is queried.
func (c *Client) Alias(collection syntax.NSID) string {
	slug := strings.ReplaceAll(strings.ToLower(string(collection)), ".", "-")
	if len(slug) > maxSlug {
		slug = slug[:maxSlug-17] + "-" + shortHash([]byte(slug), 16)
	}
	return c.prefix + "-" + slug
}

// writeAlias is the one by which an index is written. Bulk requests insist on
// an alias, so that a dropped index is an error instead of being made anew
// without its mapping.
func writeAlias(index string) string { return index + "-write" }

// documentID is the record's AT-URI, or its SHA-256 where that is too long for an _id.
func documentID(key record.Key) string {
	uri := key.String()
	if len(uri) <= maxID {
		return uri
	}
	sum := sha256.Sum256([]byte(uri))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// shortHash is the first digits of the hex SHA-256.
func shortHash(data []byte, digits int) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])[:digits]
}

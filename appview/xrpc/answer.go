package xrpc

import (
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/labstack/echo/v4"

	"github.com/layers-pub/layers-appview/internal/record"
)

// Answers are put together by hand, for one reason: a record's value has to go
// out byte for byte as it is stored, and an encoder would reformat it. Nothing
// else in an answer needs escaping: AT-URIs, CIDs, NSIDs and cursors consist of
// characters that stand for themselves in JSON.

const (
	bufferSize   = 32 << 10
	maxKeptAside = 1 << 20 // larger buffers are left to the garbage collector
)

var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, bufferSize)
	return &b
}}

// AnswerJSON sends what fill appends to a buffer of the pool.
func AnswerJSON(c echo.Context, fill func(b []byte) []byte) error {
	buffer := buffers.Get().(*[]byte)
	defer func() {
		if cap(*buffer) <= maxKeptAside {
			buffers.Put(buffer)
		}
	}()
	*buffer = fill((*buffer)[:0])
	header := c.Response().Header()
	header.Set(echo.HeaderContentType, echo.MIMEApplicationJSON)
	header.Set(echo.HeaderContentLength, strconv.Itoa(len(*buffer)))
	c.Response().WriteHeader(http.StatusOK)
	_, err := c.Response().Write(*buffer)
	return err
}

// AppendRecord appends {"uri":…,"cid":…,"value":…}.
func AppendRecord(b []byte, r *record.Record) []byte {
	return append(appendFields(append(b, '{'), r), '}')
}

func appendFields(b []byte, r *record.Record) []byte {
	b = append(b, `"uri":"`...)
	b = AppendURI(b, r.Key)
	b = append(b, `","cid":"`...)
	b = append(b, r.CID...)
	b = append(b, `","value":`...)
	return append(b, r.Value...)
}

// AppendURI appends the AT-URI of a record.
func AppendURI(b []byte, k record.Key) []byte {
	b = append(b, "at://"...)
	b = append(b, k.DID...)
	b = append(b, '/')
	b = append(b, k.Collection...)
	b = append(b, '/')
	return append(b, k.Rkey...)
}

// appendPage appends {"records":[…],"cursor":…}, under the name that the lexicon
// gives the array; without cursor on the last page.
func appendPage(b []byte, items string, records []record.Record, cursor string, one func([]byte, *record.Record) []byte) []byte {
	b = append(b, `{"`...)
	b = append(b, items...)
	b = append(b, `":[`...)
	for i := range records {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(b, &records[i])
	}
	b = append(b, ']')
	if cursor != "" {
		b = append(b, `,"cursor":"`...)
		b = append(b, cursor...)
		b = append(b, '"')
	}
	return append(b, '}')
}

// HeaderETag is the name of the header in the form that net/http keeps it.
const HeaderETag = "Etag"

// Unchanged labels the answer with the record's CID, and tells whether that is
// what the client already has. The tag is weak, since the same record may go out
// compressed or not.
func Unchanged(c echo.Context, cid syntax.CID) bool {
	tag := `W/"` + string(cid) + `"`
	c.Response().Header().Set(HeaderETag, tag)
	return matches(c.Request().Header.Values("If-None-Match"), tag)
}

// matches compares weakly, as RFC 9110 section 13.1.2 has it for If-None-Match.
func matches(fields []string, tag string) bool {
	for _, field := range fields {
		for candidate := range strings.SplitSeq(field, ",") {
			candidate = strings.TrimSpace(candidate)
			if candidate == "*" || strings.TrimPrefix(candidate, "W/") == strings.TrimPrefix(tag, "W/") {
				return true
			}
		}
	}
	return false
}

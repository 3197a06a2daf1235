package backfill

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPatience(t *testing.T) {
	t.Parallel()
	soon := time.Now().Add(90 * time.Second)
	for name, c := range map[string]struct {
		key, value  string
		least, most time.Duration
	}{
		"seconds": {"Retry-After", "7", 7 * time.Second, 7 * time.Second},
		"date":    {"Retry-After", soon.UTC().Format(http.TimeFormat), time.Second, 90 * time.Second},
		"past":    {"Retry-After", "Thu, 01 Jan 1970 00:00:00 GMT", 0, 0},
		"reset":   {"RateLimit-Reset", strconv.FormatInt(soon.Unix(), 10), time.Second, 90 * time.Second},
		"absent":  {"X", "", time.Minute, time.Minute},
		"endless": {"Retry-After", "99999999", time.Hour, time.Hour},
		"wrong":   {"Retry-After", "soon", time.Minute, time.Minute},
	} {
		header := http.Header{}
		header.Set(c.key, c.value)
		wait := patience(header)
		require.GreaterOrEqual(t, wait, c.least, name)
		require.LessOrEqual(t, wait, c.most, name)
	}
}

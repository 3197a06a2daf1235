package verify

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOneEncodingOfEachValue reads values of all kinds, and other encodings of them.
func TestOneEncodingOfEachValue(t *testing.T) {
	t.Parallel()
	link := "\xd8\x2a\x58\x25\x00" + emptyTree.KeyString()
	for name, c := range map[string]struct {
		item string
		ok   bool
	}{
		"0":                               {"\x00", true},
		"23":                              {"\x17", true},
		"24":                              {"\x18\x18", true},
		"23 in two bytes":                 {"\x18\x17", false},
		"256":                             {"\x19\x01\x00", true},
		"255 in three bytes":              {"\x19\x00\xff", false},
		"65,536":                          {"\x1a\x00\x01\x00\x00", true},
		"65,535 in five bytes":            {"\x1a\x00\x00\xff\xff", false},
		"2^32":                            {"\x1b\x00\x00\x00\x01\x00\x00\x00\x00", true},
		"2^32-1 in nine bytes":            {"\x1b\x00\x00\x00\x00\xff\xff\xff\xff", false},
		"-24":                             {"\x37", true},
		"a length of reserved form":       {"\x1c", false},
		"bytes without end":               {"\x5f\x41a\xff", false},
		"a number cut short":              {"\x19\x01", false},
		"nothing":                         {"", false},
		"bytes":                           {"\x42ab", true},
		"bytes cut short":                 {"\x43ab", false},
		"bytes that claim 2^63":           {"\x5b\x80\x00\x00\x00\x00\x00\x00\x00", false},
		"text":                            {"\x62\xc3\xa9", true},
		"text that is not UTF-8":          {"\x62\xc3\x28", false},
		"text of 65,536 bytes":            {"\x7a\x00\x01\x00\x00" + strings.Repeat("a", 65_536), true},
		"text of 65,537 bytes":            {"\x7a\x00\x01\x00\x01" + strings.Repeat("a", 65_537), false},
		"false, true, null":               {"\x83\xf4\xf5\xf6", true},
		"undefined":                       {"\xf7", false},
		"a float":                         {"\xfb\x00\x00\x00\x00\x00\x00\x00\x00", false},
		"a link":                          {link, true},
		"a link under another tag":        {"\xd8\x2b" + link[2:], false},
		"a link of text":                  {"\xd8\x2a\x61a", false},
		"a link without prefix":           {"\xd8\x2a\x58\x24" + emptyTree.KeyString(), false},
		"a link with another prefix":      {"\xd8\x2a\x58\x25\x01" + emptyTree.KeyString(), false},
		"a link of nothing":               {"\xd8\x2a\x40", false},
		"an empty map":                    {"\xa0", true},
		"a map in order":                  {"\xa3\x61a\x01\x61b\x01\x62aa\x01", true},
		"a map out of order":              {"\xa2\x61b\x01\x61a\x01", false},
		"a map with long keys first":      {"\xa2\x62aa\x01\x61b\x01", false},
		"a map with a key twice":          {"\xa2\x61a\x01\x61a\x01", false},
		"a map with a key that is none":   {"\xa1\x01\x01", false},
		"a map that claims too much":      {"\xbb\x00\x00\x00\xff\xff\xff\xff\xff\x61a", false},
		"a map without its last value":    {"\xa1\x61a", false},
		"a list that claims too much":     {"\x9b\x00\x00\x00\xff\xff\xff\xff\xff\x01", false},
		"a list without its last element": {"\x82\x01", false},
		"32 levels":                       {strings.Repeat("\x81", 32) + "\x01", true},
		"33 levels":                       {strings.Repeat("\x81", 33) + "\x01", false},
		"33 levels of maps":               {strings.Repeat("\xa1\x61m", 33) + "\x01", false},
		"two values":                      {"\x01\x01", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := cborReader{data: []byte(c.item)}
			err := r.skip(0)
			if err == nil {
				err = r.end()
			}
			require.Equal(t, c.ok, err == nil, "%v", err)
		})
	}
}

func TestCIDsOfOneKind(t *testing.T) {
	t.Parallel()
	good := emptyTree.Bytes()
	for name, c := range map[string]struct {
		at    int
		value byte
		ok    bool
	}{
		"DAG-CBOR": {1, 0x71, true}, "raw": {1, 0x55, true}, "DAG-PB": {1, 0x70, false},
		"version 0": {0, 0x12, false}, "SHA-512": {2, 0x13, false}, "a hash of 31 bytes": {3, 31, false},
	} {
		raw := append([]byte(nil), good...)
		raw[c.at] = c.value
		_, err := parseCID(raw)
		require.Equal(t, c.ok, err == nil, "%s: %v", name, err)
	}
	for _, raw := range [][]byte{nil, good[:35], append(append([]byte(nil), good...), 0)} {
		_, err := parseCID(raw)
		require.Error(t, err)
	}
}

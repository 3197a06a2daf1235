package catalog_test

import (
	"bytes"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	cbor "github.com/ipfs/go-ipld-cbor"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
)

const anything syntax.NSID = "org.example.any"

// loose follows a collection without a lexicon, so that only the data model counts.
func loose(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Load()
	require.NoError(t, err)
	require.NoError(t, c.Follow(string(anything)))
	return c
}

// wrap is the block of {"v": value, "$type": "org.example.any"}, the value given raw.
func wrap(raw string) []byte {
	return []byte("\xa2\x61v" + raw + "\x65$type\x6f" + string(anything))
}

func TestBlocksThatAreRefused(t *testing.T) {
	t.Parallel()
	c := loose(t)
	cidBytes := string(snapshot.CID().Bytes())
	link := func(raw string) string { return "\xd8\x2a\x58" + string([]byte{byte(len(raw))}) + raw }
	for name, test := range map[string]struct{ raw, path, reason string }{
		"array of 2^64-1":             {"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "v", "ends before"},
		"array of 2^31":               {"\x9a\x80\x00\x00\x00", "v", "ends before"},
		"map of 2^64-1":               {"\xbb\xff\xff\xff\xff\xff\xff\xff\xff", "v", "ends before"},
		"map of 2^63":                 {"\xbb\x80\x00\x00\x00\x00\x00\x00\x00", "v", "ends before"},
		"string of 2^64-1":            {"\x7b\xff\xff\xff\xff\xff\xff\xff\xff", "v", "ends before"},
		"bytes of 2^32-1":             {"\x5a\xff\xff\xff\xff", "v", "ends before"},
		"array of indefinite length":  {"\x9f\x01\xff", "v", "indefinite"},
		"map of indefinite length":    {"\xbf\xff", "v", "indefinite"},
		"string of indefinite length": {"\x7f\x61a\xff", "v", "indefinite"},
		"bytes of indefinite length":  {"\x5f\xff", "v", "indefinite"},
		"break":                       {"\xff", "v", "simple value"},
		"reserved length":             {"\x1c", "v", "reserved"},
		"undefined":                   {"\xf7", "v", "simple value"},
		"simple value 0":              {"\xe0", "v", "simple value"},
		"simple value in a byte":      {"\xf8\x20", "v", "simple value"},
		"half float":                  {"\xf9\x3c\x00", "v", "floating-point"},
		"float":                       {"\xfa\x3f\x80\x00\x00", "v", "floating-point"},
		"double 1.0":                  {"\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00", "v", "floating-point"},
		"NaN":                         {"\xf9\x7e\x00", "v", "floating-point"},
		"infinity":                    {"\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00", "v", "floating-point"},
		"integer in too many bytes":   {"\x18\x17", "v", "longer than it needs"},
		"integer in too many bytes 2": {"\x19\x00\xff", "v", "longer than it needs"},
		"integer in too many bytes 4": {"\x1a\x00\x00\xff\xff", "v", "longer than it needs"},
		"integer in too many bytes 8": {"\x1b\x00\x00\x00\x00\xff\xff\xff\xff", "v", "longer than it needs"},
		"length in too many bytes":    {"\x78\x01a", "v", "longer than it needs"},
		"tag in too many bytes":       {"\xd9\x00\x2a\x41\x00", "v", "longer than it needs"},
		"2^53":                        {"\x1b\x00\x20\x00\x00\x00\x00\x00\x00", "v", "53 bits"},
		"-2^53":                       {"\x3b\x00\x1f\xff\xff\xff\xff\xff\xff", "v", "53 bits"},
		"2^64-1":                      {"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", "v", "53 bits"},
		"-2^64":                       {"\x3b\xff\xff\xff\xff\xff\xff\xff\xff", "v", "53 bits"},
		"tag 0":                       {"\xc0\x74" + "2013-03-21T20:04:00Z", "v", "tag other than 42"},
		"tag 2, a big number":         {"\xc2\x41\x01", "v", "tag other than 42"},
		"tag 55799":                   {"\xd9\xd9\xf7\x01", "v", "tag other than 42"},
		"link that is a string":       {"\xd8\x2a\x61a", "v", "link without bytes"},
		"link in a link":              {"\xd8\x2a\xd8\x2a\x41\x00", "v", "link without bytes"},
		"empty link":                  {"\xd8\x2a\x40", "v", "without its prefix"},
		"link without prefix":         {link(cidBytes), "v", "without its prefix"},
		"link of a prefix alone":      {"\xd8\x2a\x41\x00", "v", "no CID"},
		"link with a byte too many":   {link("\x00" + cidBytes + "\x00"), "v", "no CID"},
		"link cut short":              {link("\x00" + cidBytes[:30]), "v", "no CID"},
		"string that is not UTF-8":    {"\x62\xc3\x28", "v", "not UTF-8"},
		"surrogate":                   {"\x63\xed\xa0\x80", "v", "not UTF-8"},
		"overlong UTF-8":              {"\x62\xc0\xaf", "v", "not UTF-8"},
		"beyond U+10FFFF":             {"\x64\xf4\x90\x80\x80", "v", "not UTF-8"},
		"name that is not UTF-8":      {"\xa1\x61\xff\x01", "v", "not UTF-8"},
		"name that is no string":      {"\xa1\x01\x01", "v", "not a string"},
		"the same name twice":         {"\xa2\x61a\x01\x61a\x02", "v.a", "twice"},
		"names out of order":          {"\xa2\x61b\x01\x61a\x02", "v.a", "out of order"},
		"long names first":            {"\xa2\x62aa\x01\x61b\x02", "v.b", "out of order"},
		"link as JSON has it":         {"\xa1\x65$link\x61x", "v.$link", "reserves this name"},
		"bytes as JSON has them":      {"\x81\xa1\x66$bytes\x60", "v[0].$bytes", "reserves this name"},
		"$link among others":          {"\xa2\x61a\x01\x65$link\x61x", "v.$link", "reserves this name"},
		"$type that is no string":     {"\xa1\x65$type\x01", "v.$type", "wrong type"},
		"$type that is empty":         {"\xa1\x65$type\x60", "v.$type", "wrong type"},
		"blob without parts":          {"\xa1\x65$type\x64blob", "v", "malformed blob"},
		"blob with a part more":       {"\xa5\x61x\x01\x63ref" + link("\x00"+cidBytes) + "\x64size\x01\x65$type\x64blob\x68mimeType\x60", "v.x", "malformed blob"},
		"blob of a negative size":     {"\xa4\x63ref" + link("\x00"+cidBytes) + "\x64size\x20\x65$type\x64blob\x68mimeType\x60", "v.size", "malformed blob"},
		"blob with a ref in text":     {"\xa4\x63ref\x61x\x64size\x01\x65$type\x64blob\x68mimeType\x60", "v.ref", "malformed blob"},
		"33 levels":                   {strings.Repeat("\x81", 32) + "\x01", "v" + strings.Repeat("[0]", 31), "nested too deep"},
		"a million levels":            {strings.Repeat("\x81", 900_000), "v" + strings.Repeat("[0]", 31), "nested too deep"},
		"33 levels of maps":           {strings.Repeat("\xa1\x61m", 32) + "\x01", "v" + strings.Repeat(".m", 31), "nested too deep"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			invalid := refuseBlock(t, c, keyIn(anything), wrap(test.raw))
			assert.Contains(t, invalid.Reason, test.reason)
			assert.Equal(t, test.path, invalid.Path)
		})
	}
}

func TestBlocksThatAreNoRecord(t *testing.T) {
	t.Parallel()
	c := loose(t)
	good := wrap("\x01")
	for name, test := range map[string]struct {
		block  []byte
		reason string
	}{
		"nothing":         {nil, "not an object"},
		"a list":          {[]byte("\x80"), "not an object"},
		"a string":        {[]byte("\x61a"), "not an object"},
		"bytes after it":  {append(bytes.Clone(good), 0xf6), "bytes follow"},
		"a record more":   {append(bytes.Clone(good), good...), "bytes follow"},
		"one byte short":  {good[:len(good)-1], "ends before"},
		"a head alone":    {[]byte("\xb9\x00"), "ends before"},
		"1,000,001 bytes": {append([]byte("\xa2\x61v\x5a"), make([]byte, 1_000_001-4)...), "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Contains(t, refuseBlock(t, c, keyIn(anything), test.block).Reason, test.reason)
		})
	}
}

func TestBlocksAtTheLimits(t *testing.T) {
	t.Parallel()
	c := loose(t)
	whole := wrap("\x5a\x00\x00\x00\x00")
	size := catalog.MaxSize - len(whole)
	for name, raw := range map[string]string{
		"1,000,000 bytes":               "\x5a" + string([]byte{0, byte(size >> 16), byte(size >> 8), byte(size)}) + strings.Repeat("\x00", size),
		"32 levels":                     strings.Repeat("\x81", 31) + "\x01",
		"32 levels, the last one empty": strings.Repeat("\x81", 30) + "\xa0",
		"2^53-1":                        "\x1b\x00\x1f\xff\xff\xff\xff\xff\xff",
		"-2^53+1":                       "\x3b\x00\x1f\xff\xff\xff\xff\xff\xfe",
		"NUL":                           "\x61\x00",
		"200,000 elements":              "\x9a\x00\x03\x0d\x40" + strings.Repeat("\x01", 200_000),
	} {
		block := wrap(raw)
		checked, err := c.Check(keyIn(anything), block)
		require.NoError(t, err, name)
		assert.Equal(t, block, fromJSON(t, checked.JSON), name)
	}
}

// A block costs memory by its size, not by what it declares or how it is cut up:
// the JSON, which is at most 14 times as long, what it leaves behind as it grows
// (less where room of an earlier check is at hand), a copy of it to keep, and one of
// the text.
//
// It counts what the whole program allocates, so nothing runs beside it.
func TestMemoryIsBoundedByTheBlock(t *testing.T) {
	c := loose(t)
	const n = 900_000
	fill := func(unit string) string {
		count := n / len(unit)
		return "\x9a" + string([]byte{byte(count >> 24), byte(count >> 16), byte(count >> 8), byte(count)}) + strings.Repeat(unit, count)
	}
	for name, raw := range map[string]string{
		"empty maps": fill("\xa0"), "empty lists": fill("\x80"), "small maps": fill("\xa1\x60\x00"), "nulls": fill("\xf6"), "control characters": fill("\x61\x00"),
		"empty bytes": fill("\x40"),
	} {
		block := wrap(raw)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		checked, err := c.Check(keyIn(anything), block)
		runtime.ReadMemStats(&after)
		require.NoError(t, err, name)
		allocated := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %.1f bytes for each of the block's", name, float64(allocated)/float64(len(block)))
		assert.Less(t, allocated, uint64(96*len(block)), name)
		assert.LessOrEqual(t, len(checked.JSON), 14*len(block), name)
	}
}

// For any bytes, what the scanner accepts is exactly what comes back as it was
// when decoded and encoded again, and is a value of the data model.
func TestAcceptsExactlyWhatReencodesTheSame(t *testing.T) {
	t.Parallel()
	c := loose(t)
	r := rand.New(rand.NewPCG(3, 4))
	accepted, refused := 0, 0
	for range 300 {
		value := anyObject(r, 3)
		value["$type"] = string(anything)
		_, block := encode(t, value)
		for range 200 {
			changed := mangle(r, block)
			_, err := c.Check(keyIn(anything), changed)
			require.Equal(t, reencodes(changed), err == nil, "%v\n%.2000s", err, hex.EncodeToString(changed))
			if err == nil {
				accepted++
			} else {
				refused++
			}
		}
	}
	t.Logf("%d accepted, %d refused", accepted, refused)
	assert.Greater(t, accepted, 5000)
	assert.Greater(t, refused, 5000)
}

// mangle changes a few bytes of a block, or none.
func mangle(r *rand.Rand, block []byte) []byte {
	out := bytes.Clone(block)
	for range r.IntN(3) {
		at := r.IntN(len(out))
		switch r.IntN(5) {
		case 0:
			out[at] ^= 1 << r.IntN(8)
		case 1:
			out[at] = byte(r.Uint32())
		case 2:
			out = append(out[:at], out[at+1:]...)
		case 3:
			out = append(out[:at], append([]byte{byte(r.Uint32())}, out[at:]...)...)
		case 4:
			// Heads are where a canonical form can go wrong.
			out[at] = []byte{0x18, 0x19, 0x1a, 0x1b, 0x38, 0x58, 0x78, 0x98, 0x9f, 0xb8, 0xbf, 0xd8, 0xf6, 0xf7, 0xf9, 0xfb, 0xff}[r.IntN(17)]
		}
		if len(out) == 0 {
			return out
		}
	}
	return out
}

// reencodes judges a block by another decoder and encoder.
func reencodes(block []byte) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	var value map[string]any
	if err := cbor.DecodeInto(block, &value); err != nil || value == nil || value["$type"] != string(anything) || !inDataModel(value, 1) {
		return false
	}
	again, err := cbor.DumpObject(withEmptyBytes(value))
	return err == nil && bytes.Equal(again, block)
}

// withEmptyBytes puts empty bytes where the decoder left nil ones, which it would
// encode as null.
func withEmptyBytes(value any) any {
	switch v := value.(type) {
	case []byte:
		return append([]byte{}, v...)
	case []any:
		for i, element := range v {
			v[i] = withEmptyBytes(element)
		}
	case map[string]any:
		for key, element := range v {
			v[key] = withEmptyBytes(element)
		}
	}
	return value
}

// inDataModel tells whether a decoded value is one of the protocol's data model.
func inDataModel(value any, depth int) bool {
	switch v := value.(type) {
	case nil, bool, []byte, cid.Cid:
		return true
	case int:
		return v <= 1<<53-1 && v >= -(1<<53-1)
	case string:
		return utf8.ValidString(v)
	case []any:
		for _, element := range v {
			if !inDataModel(element, depth+1) {
				return false
			}
		}
		return depth <= 32
	case map[string]any:
		for key, element := range v {
			if !utf8.ValidString(key) || key == "$link" || key == "$bytes" || !inDataModel(element, depth+1) {
				return false
			}
		}
		return depth <= 32 && typeIsFine(v)
	}
	return false
}

func typeIsFine(v map[string]any) bool {
	name, ok := v["$type"]
	if !ok {
		return true
	}
	if name == "blob" {
		_, isText := v["mimeType"].(string)
		_, isLink := v["ref"].(cid.Cid)
		size, isInteger := v["size"].(int)
		return len(v) == 4 && isText && isLink && isInteger && size >= 0
	}
	text, ok := name.(string)
	return ok && text != ""
}

// The JSON form of any value of the data model decodes, by the protocol's own
// package, to the very same block.
func TestJSONRoundTrip(t *testing.T) {
	t.Parallel()
	c := loose(t)
	r := rand.New(rand.NewPCG(5, 6))
	for range 3000 {
		value := anyObject(r, 4)
		value["$type"] = string(anything)
		key, block := encode(t, value)
		checked, err := c.Check(key, block)
		require.NoError(t, err)
		decoded, err := atdata.UnmarshalJSON(checked.JSON)
		require.NoError(t, err, "%.2000s", checked.JSON)
		again, err := atdata.MarshalCBOR(decoded)
		require.NoError(t, err)
		require.Equal(t, block, again, "%.2000s", checked.JSON)
		require.Equal(t, block, fromJSON(t, checked.JSON))
	}
}

func TestJSONForm(t *testing.T) {
	t.Parallel()
	checked, err := check(t, loose(t), map[string]any{
		"$type": string(anything), "a": nil, "bb": atdata.Bytes{}, "b": atdata.Bytes{0xfb, 0xff}, "link": snapshot,
		"blob": atdata.Blob{Ref: snapshot, MimeType: "image/png", Size: 12}, "n": int64(-math.MaxInt32), "e": map[string]any{}, "l": []any{true, false},
		"t": "<&>\u2028\u007f\x00\x1f\"\\\n\t\r\b𝔄",
	})
	require.NoError(t, err)
	want := `{"a":null,"b":{"$bytes":"+/8"},"e":{},"l":[true,false],"n":-2147483647,"t":"<&>` + "\u2028\u007f" + `\u0000\u001f\"\\\n\t\r\u0008𝔄","bb":{"$bytes":""},` +
		`"blob":{"ref":{"$link":"` + snapshot.String() + `"},"size":12,"$type":"blob","mimeType":"image/png"},"link":{"$link":"` + snapshot.String() + `"},"$type":"org.example.any"}`
	assert.Equal(t, want, string(checked.JSON))
}

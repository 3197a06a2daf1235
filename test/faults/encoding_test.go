package faults

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"
)

// address is the CID of a DAG-CBOR block.
func address(block []byte) string {
	sum := sha256.Sum256(block)
	return "b" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(
		append([]byte{0x01, 0x71, 0x12, 0x20}, sum[:]...)))
}

// link is a CID within a value.
type link string

// encode is the DAG-CBOR of a value: a value of package fixture, or one from JSON.
func encode(value any) []byte {
	var out bytes.Buffer
	write(&out, value)
	return out.Bytes()
}

func write(out *bytes.Buffer, value any) {
	switch v := value.(type) {
	case nil:
		out.WriteByte(0xf6)
	case bool:
		out.WriteByte(map[bool]byte{false: 0xf4, true: 0xf5}[v])
	case int64:
		if v < 0 {
			head(out, 0x20, uint64(-1-v))
		} else {
			head(out, 0x00, uint64(v))
		}
	case int:
		write(out, int64(v))
	case string:
		head(out, 0x60, uint64(len(v)))
		out.WriteString(v)
	case []byte:
		head(out, 0x40, uint64(len(v)))
		out.Write(v)
	case link:
		raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(string(v[1:])))
		if err != nil {
			panic(err)
		}
		out.Write([]byte{0xd8, 0x2a})
		write(out, append([]byte{0}, raw...))
	case []any:
		head(out, 0x80, uint64(len(v)))
		for _, item := range v {
			write(out, item)
		}
	case map[string]any:
		writeMap(out, v)
	case atdata.Bytes:
		write(out, []byte(v))
	case atdata.CIDLink:
		write(out, link(cid.Cid(v).String()))
	case atdata.Blob:
		write(out, map[string]any{"$type": "blob", "ref": v.Ref, "mimeType": v.MimeType, "size": v.Size})
	default:
		panic(fmt.Sprintf("a %T in a record", value))
	}
}

// writeMap has the keys in the order of DAG-CBOR: shorter ones first.
func writeMap(out *bytes.Buffer, m map[string]any) {
	head(out, 0xa0, uint64(len(m)))
	keys := slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	for _, key := range keys {
		write(out, key)
		write(out, m[key])
	}
}

func head(out *bytes.Buffer, major byte, n uint64) {
	switch {
	case n < 24:
		out.WriteByte(major | byte(n))
	case n < 1<<8:
		out.Write([]byte{major | 24, byte(n)})
	case n < 1<<16:
		out.WriteByte(major | 25)
		out.Write(binary.BigEndian.AppendUint16(nil, uint16(n)))
	case n < 1<<32:
		out.WriteByte(major | 26)
		out.Write(binary.BigEndian.AppendUint32(nil, uint32(n)))
	default:
		out.WriteByte(major | 27)
		out.Write(binary.BigEndian.AppendUint64(nil, n))
	}
}

// fromJSON reads a value in the data model's JSON form.
func fromJSON(text string) (any, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	return plain(value)
}

func plain(value any) (any, error) {
	var err error
	switch v := value.(type) {
	case json.Number:
		return v.Int64()
	case []any:
		for i := range v {
			if v[i], err = plain(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		if text, ok := v["$link"].(string); ok && len(v) == 1 {
			return link(text), nil
		}
		if text, ok := v["$bytes"].(string); ok && len(v) == 1 {
			return base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
		}
		for key := range v {
			if v[key], err = plain(v[key]); err != nil {
				return nil, err
			}
		}
	}
	return value, nil
}

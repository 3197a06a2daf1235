package catalog_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/lexicon"
	"github.com/bluesky-social/indigo/atproto/syntax"
	cbor "github.com/ipfs/go-ipld-cbor"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/lexicons"
)

var embedded = sync.OnceValues(func() (*catalog.Catalog, error) { return catalog.Load() })

// load is the catalog of the embedded lexicons, shared.
func load(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := embedded()
	require.NoError(t, err)
	return c
}

// directory writes lexicon files, named as their NSIDs say.
func directory(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for nsid, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, nsid+".json"), []byte(text), 0o600))
	}
	return dir
}

// withOperator is the catalog of the embedded lexicons and an operator's, and the
// lexicon package's own, to judge it by.
func withOperator(t testing.TB) (*catalog.Catalog, *lexicon.BaseCatalog) {
	t.Helper()
	dir := directory(t, operatorLexicons)
	c, err := catalog.Load(os.DirFS(dir))
	require.NoError(t, err)
	schemas := lexicon.NewBaseCatalog()
	require.NoError(t, schemas.LoadEmbedFS(lexicons.FS))
	require.NoError(t, schemas.LoadDirectory(dir))
	return c, schemas
}

const author syntax.DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"

func keyIn(collection syntax.NSID) record.Key {
	return record.Key{DID: author, Collection: collection, Rkey: "3l6oveex3ii2l"}
}

// encode is the block of a value; its $type is the collection it is meant for.
func encode(t testing.TB, value map[string]any) (record.Key, []byte) {
	t.Helper()
	block, err := atdata.MarshalCBOR(value)
	require.NoError(t, err)
	name, _ := value["$type"].(string)
	return keyIn(syntax.NSID(name)), block
}

func check(t testing.TB, c *catalog.Catalog, value map[string]any) (catalog.Checked, error) {
	t.Helper()
	key, block := encode(t, value)
	return c.Check(key, block)
}

// refuse checks a value that is not valid, and returns why.
func refuse(t testing.TB, c *catalog.Catalog, value map[string]any) *catalog.Invalid {
	t.Helper()
	key, block := encode(t, value)
	return refuseBlock(t, c, key, block)
}

func refuseBlock(t testing.TB, c *catalog.Catalog, key record.Key, block []byte) *catalog.Invalid {
	t.Helper()
	checked, err := c.Check(key, block)
	var invalid *catalog.Invalid
	require.ErrorAs(t, err, &invalid)
	require.Zero(t, checked)
	return invalid
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// fromJSON encodes the data model's JSON form as DAG-CBOR. The protocol's package
// does the same within limits of its own, on lengths and with objects that look
// like a blob of 2022; this has none.
func fromJSON(t testing.TB, text []byte) []byte {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value map[string]any
	require.NoError(t, decoder.Decode(&value))
	block, err := cbor.DumpObject(fromJSONValue(t, value))
	require.NoError(t, err)
	return block
}

func fromJSONValue(t testing.TB, value any) any {
	switch v := value.(type) {
	case json.Number:
		n, err := v.Int64()
		require.NoError(t, err)
		return n
	case []any:
		out := make([]any, len(v))
		for i, element := range v {
			out[i] = fromJSONValue(t, element)
		}
		return out
	case map[string]any:
		if text, ok := v["$link"].(string); ok {
			return mustCID(text).CID()
		}
		if text, ok := v["$bytes"].(string); ok {
			raw, err := base64.RawStdEncoding.DecodeString(text)
			require.NoError(t, err)
			return raw
		}
		out := make(map[string]any, len(v))
		for key, element := range v {
			out[key] = fromJSONValue(t, element)
		}
		return out
	}
	return value
}

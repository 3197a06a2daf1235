package project

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
)

var update = flag.Bool("update", false, "renew the records and projections under testdata")

func loadCatalog(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Load()
	require.NoError(t, err)
	return c
}

// recordOf is a record as the store would hand it out, checked by the catalog.
func recordOf(t testing.TB, cat *catalog.Catalog, collection syntax.NSID, value map[string]any) (record.Record, []record.Ref) {
	t.Helper()
	block, err := atdata.MarshalCBOR(value)
	require.NoError(t, err)
	key := record.Key{DID: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", Collection: collection, Rkey: "3kznmn7xqxl22"}
	checked, err := cat.Check(key, block)
	require.NoError(t, err)
	return record.Record{
		Key: key, CID: "bafyreidfcm4u3vnuph5ltwdpssiz3a4xfbm2otjrdisftwnbfmnxd6lsxm", Rev: "3kznmn7xqxl22",
		Value: checked.JSON, CreatedAt: checked.CreatedAt, IndexedAt: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), Version: 7,
	}, checked.Refs
}

// projection is all that becomes of one record.
type projection struct {
	Targets     []record.Target
	Mapping     any `json:",omitempty"`
	Document    any `json:",omitempty"`
	Subgraph    any
	Annotations []record.Annotation `json:",omitempty"`
}

func project(t testing.TB, c *catalog.Collection, rec record.Record) projection {
	t.Helper()
	out := projection{Targets: Targets(c)}
	for _, target := range out.Targets {
		switch target {
		case record.Search:
			mapping, ok := Mapping(c)
			require.True(t, ok)
			doc, err := Document(c, rec)
			require.NoError(t, err)
			out.Mapping, out.Document = mapping.Properties, doc
		case record.Graph:
			sub, err := Subgraph(c, rec)
			require.NoError(t, err)
			out.Subgraph = sub
		case record.Tables:
			rows, err := Annotations(c, rec)
			require.NoError(t, err)
			out.Annotations = rows
		}
	}
	return out
}

// TestProjectionsAreAsReviewed compares the projections of one record of every
// type with those under testdata, so that what a change does to them can be reviewed.
func TestProjectionsAreAsReviewed(t *testing.T) {
	cat := loadCatalog(t)
	for _, c := range cat.Collections() {
		t.Run(string(c.NSID), func(t *testing.T) {
			input := filepath.Join("testdata", string(c.NSID)+".record.json")
			golden := filepath.Join("testdata", string(c.NSID)+".projection.json")
			if *update {
				rec, _ := recordOf(t, cat, c.NSID, fixture.Full(c.NSID))
				writeJSON(t, input, rec.Value)
			}
			raw, err := os.ReadFile(input)
			require.NoError(t, err)
			value, err := atdata.UnmarshalJSON(raw)
			require.NoError(t, err)
			rec, _ := recordOf(t, cat, c.NSID, value)
			got := project(t, c, rec)
			if *update {
				writeJSON(t, golden, got)
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.JSONEq(t, string(want), string(marshal(t, got)))
		})
	}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "\t")
	require.NoError(t, encoder.Encode(v))
	return buf.Bytes()
}

func writeJSON(t testing.TB, path string, v any) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, marshal(t, v), 0o644))
}

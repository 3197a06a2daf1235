package catalog_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/lexicon"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
)

// judge is the verdict of the lexicon package.
func judge(schemas lexicon.Catalog, block []byte, nsid string) error {
	value, err := atdata.UnmarshalCBOR(block)
	if err != nil {
		return err
	}
	return lexicon.ValidateRecord(schemas, value, nsid, 0)
}

// Our walk along the compiled schemas and the lexicon package's own validation
// agree on random records of every type: valid ones, and ones with something
// changed in a few places.
func TestVerdictsAreThoseOfTheLexiconPackage(t *testing.T) {
	t.Parallel()
	c, schemas := withOperator(t)
	r := rand.New(rand.NewPCG(1, 2))
	const each = 400
	valid, invalid := 0, 0
	for _, collection := range c.Collections() {
		for i := range each {
			value := valueOf(r, collection.Schema, 1+i%4).(map[string]any)
			value["$type"] = string(collection.NSID)
			if i%4 == 0 {
				_, err := check(t, c, value)
				require.NoError(t, err, "%v", value)
			}
			for range i % 4 {
				value = mutated(r, value, collection)
			}
			key, block := encode(t, value)
			key.Collection = collection.NSID
			_, ours := c.Check(key, block)
			theirs := judge(schemas, block, string(collection.NSID))
			require.Equal(t, theirs == nil, ours == nil, "ours: %v\ntheirs: %v\n%v", ours, theirs, value)
			if ours == nil {
				valid++
				continue
			}
			invalid++
			var reason *catalog.Invalid
			require.True(t, errors.As(ours, &reason))
			assert.NotEmpty(t, reason.Reason)
		}
	}
	t.Logf("%d valid, %d invalid", valid, invalid)
	assert.Greater(t, valid, 3000)
	assert.Greater(t, invalid, 2500)
}

// mutated changes a record in one place, which is not where its bytes would not
// be one: those are the data model's rules, which the lexicon package does not know.
func mutated(r *rand.Rand, value map[string]any, collection *catalog.Collection) map[string]any {
	out, ok := mutate(r, value).(map[string]any)
	if !ok {
		out = map[string]any{}
	}
	if r.IntN(10) > 0 {
		out["$type"] = string(collection.NSID)
	}
	return out
}

// The documented differences from the lexicon package, each of which takes what
// that refuses. There is none the other way.
func TestVerdictsThatDiffer(t *testing.T) {
	t.Parallel()
	c, schemas := withOperator(t)
	note := map[string]any{"text": "x"}
	typed := func(value map[string]any, name string) map[string]any {
		value = maps.Clone(value)
		value["$type"] = name
		return value
	}
	corpus := map[string]any{"name": "x", "createdAt": "2026-01-01T00:00:00Z"}
	for name, properties := range map[string]map[string]any{
		"a definition of an open union that is no object": {"body": []any{typed(note, "org.example.field.notebook#label")}},
		"a query as the type in an open union":            {"body": []any{typed(note, "org.example.field.getNotebook")}},
		"a record as the type in an open union":           {"body": []any{typed(corpus, "pub.layers.corpus.corpus")}},
		"a member of a closed union named with #main":     {"strong": typed(map[string]any{"uri": "at://did:plc:abc", "cid": snapshot.String()}, "com.atproto.repo.strongRef#main")},
		"an object that looks like a blob of 2022":        {"extra": map[string]any{"cid": "not a CID", "mimeType": "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			value := maps.Clone(properties)
			value["$type"], value["title"], value["createdAt"] = string(notebook), "ab", "2026-01-01T00:00:00Z"
			key, block := encode(t, value)
			_, ours := c.Check(key, block)
			require.NoError(t, ours)
			require.Error(t, judge(schemas, block, string(notebook)))
		})
	}
	record := map[string]any{"$type": string(notebook), "title": "ab", "createdAt": "2026-01-01T00:00:00Z"}
	record["body"] = []any{typed(map[string]any{"createdAt": "2026-01-01T00:00:00Z"}, "pub.layers.corpus.corpus")}
	assert.Equal(t, "body[0].name", refuse(t, c, record).Path, "a record in an open union is held to its definition")
}

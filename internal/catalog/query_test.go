package catalog_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/catalog"
)

func TestQueryKinds(t *testing.T) {
	t.Parallel()
	c := load(t)
	count := map[catalog.Kind]int{}
	asked := map[syntax.NSID]map[catalog.Kind]int{}
	for _, q := range c.Queries() {
		count[q.Kind]++
		if q.Kind == catalog.Other {
			assert.Empty(t, q.Collection)
			assert.True(t, strings.HasPrefix(string(q.NSID), "pub.layers.integration."), q.NSID)
			continue
		}
		if asked[q.Collection] == nil {
			asked[q.Collection] = map[catalog.Kind]int{}
		}
		asked[q.Collection][q.Kind]++
		assert.NotNil(t, q.Output, q.NSID)
	}
	assert.Equal(t, map[catalog.Kind]int{catalog.Get: 26, catalog.List: 27, catalog.Other: 3}, count)
	for _, collection := range c.Collections() {
		lists := 1
		if collection.NSID == "pub.layers.changelog.entry" {
			lists = 2
		}
		assert.Equal(t, map[catalog.Kind]int{catalog.Get: 1, catalog.List: lists}, asked[collection.NSID], collection.NSID)
		assert.Len(t, collection.Lists, lists)
	}
}

func TestGetQueries(t *testing.T) {
	t.Parallel()
	for _, q := range load(t).Queries() {
		if q.Kind != catalog.Get {
			continue
		}
		require.Len(t, q.Params, 1, q.NSID)
		p := q.Params[0]
		p.Description = ""
		assert.Equal(t, catalog.Param{Name: "uri", Type: catalog.String, Format: "at-uri", Required: true}, p, q.NSID)
		assert.Equal(t, []string{"RecordNotFound"}, q.Errors, q.NSID)
		// getCorpus is of pub.layers.corpus.corpus.
		assert.True(t, strings.EqualFold("get"+q.Collection.Name(), q.NSID.Name()), q.NSID)
	}
}

func TestListQueries(t *testing.T) {
	t.Parallel()
	got := map[string]string{}
	for _, q := range load(t).Queries() {
		if q.Kind != catalog.List {
			continue
		}
		got[string(q.NSID)] = describeFilters(t, q)
		items := "records"
		if q.Collection == "pub.layers.changelog.entry" {
			items = "entries"
		}
		assert.Equal(t, items, q.Items, q.NSID)
		least, most := int64(1), int64(100)
		for _, p := range q.Params {
			p.Description = ""
			switch p.Name {
			case "limit":
				assert.Equal(t, catalog.Param{Name: "limit", Type: catalog.Integer, Default: 50, Minimum: &least, Maximum: &most}, p, q.NSID)
			case "cursor":
				assert.Equal(t, catalog.Param{Name: "cursor", Type: catalog.String}, p, q.NSID)
			case "languages":
				assert.True(t, p.Repeated, q.NSID)
				assert.Equal(t, catalog.String, p.Type, q.NSID)
			default:
				assert.False(t, p.Repeated, q.NSID)
			}
		}
	}
	assert.Equal(t, listFilters, got)
}

// describeFilters gives a list's filters as listFilters has them, from its
// parameters, and holds the collection's listing to the same.
func describeFilters(t *testing.T, q *catalog.Query) string {
	collection, ok := load(t).Collection(q.Collection)
	require.True(t, ok)
	at := slices.IndexFunc(collection.Lists, func(l catalog.Listing) bool { return l.Query == q.NSID })
	require.GreaterOrEqual(t, at, 0, q.NSID)
	list := collection.Lists[at]
	required, optional := []string{}, []string{}
	if list.RepoRequired {
		required = append(required, "+repo")
	}
	for _, f := range list.Required {
		required = append(required, "+"+describeFilter(f))
	}
	for _, f := range list.Optional {
		optional = append(optional, describeFilter(f))
	}
	all := append(required, optional...)
	for _, p := range q.Params {
		if p.Name == "limit" || p.Name == "cursor" {
			assert.Empty(t, p.Filter)
			continue
		}
		name := p.Filter
		if p.Repo {
			assert.Empty(t, name)
			name = "repo"
		}
		if p.Required {
			name = "+" + name
		}
		assert.True(t, slices.ContainsFunc(all, func(f string) bool { return strings.TrimRight(f, "[]*") == name }), "%s: %s", q.NSID, name)
	}
	assert.Len(t, q.Params, len(all)+2, q.NSID)
	return strings.Join(all, " ")
}

func describeFilter(f catalog.Filter) string {
	if f.Array {
		f.Name += "[]"
	}
	if f.ObjectRef {
		f.Name += "*"
	}
	return f.Name
}

func TestCollections(t *testing.T) {
	t.Parallel()
	collections := load(t).Collections()
	require.Len(t, collections, 26)
	assert.True(t, slices.IsSortedFunc(collections, func(a, b *catalog.Collection) int { return strings.Compare(string(a.NSID), string(b.NSID)) }))
	layer, ok := load(t).Collection("pub.layers.annotation.annotationLayer")
	require.True(t, ok)
	assert.Equal(t, "annotation", layer.Namespace)
	assert.Equal(t, "annotationLayer", layer.Name)
	assert.False(t, layer.Foreign)
	for _, name := range []syntax.NSID{"", "pub", "pub.layers.annotation.defs", "pub.layers.annotation.getAnnotationLayer", "app.bsky.feed.post"} {
		_, ok := load(t).Collection(name)
		assert.False(t, ok, name)
	}
}

// The schema is what mappings and documents are derived from.
func TestSchemaView(t *testing.T) {
	t.Parallel()
	layer, _ := load(t).Collection("pub.layers.annotation.annotationLayer")
	s := layer.Schema
	assert.Equal(t, catalog.Object, s.Type)
	assert.Equal(t, "pub.layers.annotation.annotationLayer", s.Def)
	kind := s.Property("kind")
	require.NotNil(t, kind)
	assert.True(t, kind.Required)
	assert.Equal(t, 128, *kind.Schema.MaxLength)
	assert.Contains(t, kind.Schema.KnownValues, "token-tag")
	assert.Equal(t, "at-uri", s.Property("expression").Schema.Format)
	annotation := s.Property("annotations").Schema.Items
	assert.Equal(t, "pub.layers.annotation.defs#annotation", annotation.Def)
	anchor := annotation.Property("anchor").Schema
	assert.Equal(t, "pub.layers.defs#anchor", anchor.Def)
	selector := anchor.Property("externalTarget").Schema.Property("selector").Schema
	assert.Equal(t, catalog.Union, selector.Type)
	assert.False(t, selector.Closed)
	require.Len(t, selector.Variants, 3)
	assert.Equal(t, "pub.layers.defs#fragmentSelector", selector.Variants[0].Def)
	assert.Nil(t, s.Property("nothing"))
}

// The documentation of the endpoints is made of these.
func TestDescriptions(t *testing.T) {
	t.Parallel()
	for _, collection := range load(t).Collections() {
		assert.NotEmpty(t, collection.Description, collection.NSID)
		assert.Equal(t, collection.Description, collection.Schema.Description)
		for _, p := range collection.Schema.Properties {
			assert.NotEmpty(t, p.Description+p.Schema.Description, "%s.%s", collection.NSID, p.Name)
		}
	}
	for _, q := range load(t).Queries() {
		assert.NotEmpty(t, q.Description, q.NSID)
		for _, p := range q.Params {
			assert.NotEmpty(t, p.Description, "%s %s", q.NSID, p.Name)
		}
	}
}

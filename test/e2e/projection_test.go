package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
)

// searchable are the collections that Elasticsearch holds.
var searchable = []syntax.NSID{
	"pub.layers.expression.expression", "pub.layers.annotation.annotationLayer", "pub.layers.ontology.ontology",
	"pub.layers.ontology.typeDef", "pub.layers.corpus.corpus", "pub.layers.resource.entry", "pub.layers.resource.collection",
	"pub.layers.judgment.experimentDef", "pub.layers.graph.graphNode", "pub.layers.persona.persona", "pub.layers.media.media",
	"pub.layers.eprint.eprint", "pub.layers.changelog.entry",
}

const annotationLayer = syntax.NSID("pub.layers.annotation.annotationLayer")

// projected requires that each projection holds what PostgreSQL holds, which has
// been compared with the truth: the same records, none in an older version.
func (d *deployment) projected(want truth) {
	d.t.Helper()
	s := d.snapshot()
	d.equal(s, want, "when its projections are compared with it")
	d.searched(want, s)
	d.graphed(want, s)
	d.flattened(want)
}

// document is what Elasticsearch holds of a record.
type document struct {
	cid     string
	version int64
}

// documents reads every document of the deployment's indexes.
func (d *deployment) documents() map[record.Key]document {
	d.t.Helper()
	d.Search(d.t, http.MethodPost, "/"+d.Prefix+"-*/_refresh", nil, nil)
	var point struct{ ID string }
	d.Search(d.t, http.MethodPost, "/"+d.Prefix+"-*/_pit?keep_alive=2m", nil, &point)
	defer d.Search(d.t, http.MethodDelete, "/_pit", map[string]any{"id": point.ID}, nil)
	found := map[record.Key]document{}
	var after []any
	for {
		query := map[string]any{
			"size": 5000, "version": true, "_source": []string{"did", "collection", "rkey", "cid"},
			"pit": map[string]any{"id": point.ID, "keep_alive": "2m"}, "sort": []any{map[string]any{"_shard_doc": "asc"}},
		}
		if after != nil {
			query["search_after"] = after
		}
		var page struct {
			Hits struct {
				Hits []struct {
					Index   string `json:"_index"`
					ID      string `json:"_id"`
					Version int64  `json:"_version"`
					Source  source `json:"_source"`
					Sort    []any  `json:"sort"`
				}
			}
		}
		d.Search(d.t, http.MethodPost, "/_search", query, &page)
		if len(page.Hits.Hits) == 0 {
			return found
		}
		for _, hit := range page.Hits.Hits {
			key := record.Key{DID: hit.Source.DID, Collection: hit.Source.Collection, Rkey: hit.Source.Rkey}
			if len(key.String()) <= 512 {
				require.Equal(d.t, key.String(), hit.ID, "the document's id is the record's AT-URI")
			}
			require.NotContains(d.t, found, key, "%s has two documents, the second in %s", key, hit.Index)
			found[key] = document{cid: hit.Source.CID, version: hit.Version}
			after = hit.Sort
		}
	}
}

// source is the part of a document that says which record it is of.
type source struct {
	DID        syntax.DID
	Collection syntax.NSID
	Rkey       syntax.RecordKey
	CID        string
}

func (d *deployment) searched(want truth, s snapshot) {
	d.t.Helper()
	docs := d.documents()
	part := want.in(searchable...)
	var diff differences
	compareKeys(&diff, part, docs)
	for key, entry := range part {
		doc, ok := docs[key]
		switch {
		case !ok:
		case doc.cid != string(entry.CID):
			diff.add("%s has the CID %s, should have %s", key, doc.cid, entry.CID)
		case doc.version < s.records[key].version:
			diff.add("%s has version %d, PostgreSQL %d", key, doc.version, s.records[key].version)
		}
	}
	diff.require(d.t, fmt.Sprintf("Elasticsearch (%d documents, should be %d)", len(docs), len(part)))
}

// graphed compares the graph's record nodes, and the edges of two types.
func (d *deployment) graphed(want truth, s snapshot) {
	d.t.Helper()
	nodes := map[record.Key]int64{}
	for _, row := range d.Cypher(d.t, `MATCH (n:Record) WHERE n.key STARTS WITH $space AND coalesce(n._dangling, false) = false
		RETURN n.did AS did, n.collection AS collection, n.rkey AS rkey, n._version AS version`) {
		fields := row.AsMap()
		key := record.Key{
			DID:        syntax.DID(fields["did"].(string)),
			Collection: syntax.NSID(fields["collection"].(string)),
			Rkey:       syntax.RecordKey(fields["rkey"].(string)),
		}
		require.NotContains(d.t, nodes, key, "%s has two nodes", key)
		nodes[key] = fields["version"].(int64)
	}
	part := want.in(followed...)
	var diff differences
	compareKeys(&diff, part, nodes)
	for key := range part {
		if version, ok := nodes[key]; ok && version < s.records[key].version {
			diff.add("%s has version %d, PostgreSQL %d", key, version, s.records[key].version)
		}
	}
	d.edges(&diff, want)
	diff.require(d.t, fmt.Sprintf("Neo4j (%d nodes, should be %d)", len(nodes), len(part)))
}

// stated are relations of which a record of a collection states one at most.
var stated = []struct {
	edge       string
	collection syntax.NSID
	from, to   string // properties of the record; "" for the record itself
}{
	{"MEMBER_OF", "pub.layers.corpus.membership", "expressionRef", "corpusRef"},
	{"MEMBER_OF", "pub.layers.resource.collectionMembership", "entryRef", "collectionRef"},
	{"ANNOTATES", annotationLayer, "", "expression"},
	{"ANNOTATES", "pub.layers.annotation.clusterSet", "", "expression"},
}

func (d *deployment) edges(diff *differences, want truth) {
	d.t.Helper()
	expected, found := map[string]int{}, map[string]int{}
	for _, relation := range stated {
		for key, entry := range want.in(relation.collection) {
			value := decode(d, entry.CBOR)
			from := key.String()
			if relation.from != "" {
				from = value[relation.from].(string)
			}
			if to, ok := value[relation.to].(string); ok {
				expected[relation.edge+" from "+from+" to "+to]++
			}
		}
	}
	for _, row := range d.Cypher(d.t, `MATCH (a)-[e:MEMBER_OF|ANNOTATES]->(b) WHERE a.key STARTS WITH $space
		RETURN type(e) AS type, a.uri AS from, b.uri AS to`) {
		fields := row.AsMap()
		found[fmt.Sprintf("%s from %s to %s", fields["type"], fields["from"], fields["to"])]++
	}
	for edge, n := range expected {
		if found[edge] == 0 {
			diff.add("missing: edge %s (%d records state it)", edge, n)
		}
	}
	for edge := range found {
		if expected[edge] == 0 {
			diff.add("should not be there: edge %s", edge)
		}
	}
}

// flattened compares the rows of single annotations with the layers they come from.
func (d *deployment) flattened(want truth) {
	d.t.Helper()
	expected := map[record.Key]string{}
	for key, entry := range want.in(annotationLayer) {
		var labels []string
		for _, annotation := range decode(d, entry.CBOR)["annotations"].([]any) {
			label, _ := annotation.(map[string]any)["label"].(string)
			labels = append(labels, strings.ReplaceAll(label, "\x00", "\uFFFD"))
		}
		if len(labels) > 0 {
			encoded, err := json.Marshal(labels)
			require.NoError(d.t, err)
			expected[key] = string(encoded)
		}
	}
	found := map[record.Key]string{}
	d.Rows(func(row pgx.Rows) error {
		var key record.Key
		var labels []string
		if err := row.Scan(&key.Collection, &key.DID, &key.Rkey, &labels); err != nil {
			return err
		}
		encoded, err := json.Marshal(labels)
		found[key] = string(encoded)
		return err
	}, "SELECT collection, did, rkey, array_agg(label ORDER BY ordinal) FROM annotations GROUP BY collection, did, rkey")
	var diff differences
	compareKeys(&diff, expected, found)
	for key, labels := range expected {
		if have, ok := found[key]; ok && have != labels {
			diff.add("%s has the labels %s, should have %s", key, have, labels)
		}
	}
	diff.require(d.t, "annotations in PostgreSQL")
}

func decode(d *deployment, block []byte) map[string]any {
	d.t.Helper()
	value, err := atdata.UnmarshalCBOR(block)
	require.NoError(d.t, err)
	return value
}

// collections are those that a set of records is in, sorted.
func collections[V any](records map[record.Key]V) []syntax.NSID {
	var all []syntax.NSID
	for key := range records {
		if !slices.Contains(all, key.Collection) {
			all = append(all, key.Collection)
		}
	}
	slices.Sort(all)
	return all
}

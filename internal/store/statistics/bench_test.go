package statistics_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/store"
	"github.com/layers-pub/layers-appview/internal/store/statistics"
	"github.com/layers-pub/layers-appview/internal/store/storetest"
)

// large makes some 200,000 records with 1,000,000 annotations: 20,000 texts in 40 corpora,
// each with a segmentation, five layers of ten annotations and two edges between others.
var large = []string{
	`INSERT INTO repos (did, updated_at) SELECT 'did:plc:repo' || i, now() FROM generate_series(0, 99) i`,
	`INSERT INTO records (version, sort_key, indexed_at, collection, did, rkey, cid, rev, filter, value)
		SELECT i, -i, now(), 'pub.layers.expression.expression', 'did:plc:repo' || i % 100, 'e' || i, 'c', 'r',
			jsonb_build_object('languages', jsonb_build_array((ARRAY['yo', 'en', 'sw', 'hi'])[1 + i % 4])), json_build_object('text', repeat('Ọ̀rọ̀ ' || i || ' ', 40))
		FROM generate_series(1, 20000) i`,
	`INSERT INTO records (version, sort_key, indexed_at, collection, did, rkey, cid, rev, filter, value)
		SELECT i, -i, now(), 'pub.layers.corpus.corpus', 'did:plc:repo' || i, 'c' || i, 'c', 'r', NULL, '{}' FROM generate_series(0, 39) i`,
	`INSERT INTO records (version, sort_key, indexed_at, collection, did, rkey, cid, rev, filter, value)
		SELECT i, -i, now(), 'pub.layers.corpus.membership', 'did:plc:repo' || i % 40, 'm' || i, 'c', 'r',
			jsonb_build_object('corpusRef', 'at://did:plc:repo' || i % 40 || '/pub.layers.corpus.corpus/c' || i % 40, 'split', (ARRAY['train', 'test'])[1 + i % 2]), '{}'
		FROM generate_series(1, 20000) i`,
	`INSERT INTO refs (target_hash, collection, did, rkey, path, target)
		SELECT 0, 'pub.layers.corpus.membership', 'did:plc:repo' || i % 40, 'm' || i, p, t FROM generate_series(1, 20000) i CROSS JOIN LATERAL (VALUES
			('corpusRef', 'at://did:plc:repo' || i % 40 || '/pub.layers.corpus.corpus/c' || i % 40),
			('expressionRef', 'at://did:plc:repo' || i % 100 || '/pub.layers.expression.expression/e' || i)) r (p, t)`,
	`INSERT INTO records (version, sort_key, indexed_at, collection, did, rkey, cid, rev, filter, value)
		SELECT i, -i, now(), 'pub.layers.segmentation.segmentation', 'did:plc:repo' || i % 100, 's' || i, 'c', 'r',
			jsonb_build_object('expression', 'at://did:plc:repo' || i % 100 || '/pub.layers.expression.expression/e' || i),
			json_build_object('tokenizations', json_build_array(json_build_object('kind', 'whitespace', 'tokens', tokens, 'uuid', json_build_object('value', 't' || i))))
		FROM generate_series(1, 20000) i CROSS JOIN (SELECT json_agg(json_build_object('tokenIndex', j, 'textSpan', json_build_object('byteStart', j * 10, 'byteEnd', j * 10 + 9))) AS tokens FROM generate_series(0, 79) j) t`,
	`INSERT INTO records (version, sort_key, indexed_at, collection, did, rkey, cid, rev, filter, value)
		SELECT i, -i, now(), 'pub.layers.annotation.annotationLayer', 'did:plc:repo' || i % 97, 'l' || i, 'c', 'r',
			jsonb_build_object('expression', 'at://did:plc:repo' || (i / 5 + 1) % 100 || '/pub.layers.expression.expression/e' || (i / 5 + 1), 'kind', (ARRAY['span', 'token-tag'])[1 + i % 2], 'subkind', (ARRAY['ner', 'pos', 'lemma', 'morph', 'sentiment'])[1 + i % 5]),
			json_build_object('annotations', a, 'tokenizationId', json_build_object('value', 't' || (i / 5 + 1)))
		FROM generate_series(0, 99999) i CROSS JOIN (SELECT json_agg(json_build_object('uuid', json_build_object('value', gen_random_uuid()), 'label', 'LABEL', 'confidence', 900, 'anchor', json_build_object('textSpan', json_build_object('byteStart', j * 10, 'byteEnd', j * 10 + 9)))) AS a FROM generate_series(0, 9) j) t`,
	`INSERT INTO refs (target_hash, collection, did, rkey, path, target)
		SELECT 0, 'pub.layers.annotation.annotationLayer', 'did:plc:repo' || i % 97, 'l' || i, 'expression', 'at://did:plc:repo' || (i / 5 + 1) % 100 || '/pub.layers.expression.expression/e' || (i / 5 + 1) FROM generate_series(0, 99999) i`,
	`INSERT INTO annotations (collection, did, rkey, ordinal, uuid, label, value, text, anchor_kind, byte_start, byte_end, token_index, confidence)
		SELECT 'pub.layers.annotation.annotationLayer', 'did:plc:repo' || i % 97, 'l' || i, j, 'u', 'LABEL-' || (i * 7 + j * j) % 200, '', '', 'textSpan',
			CASE WHEN i % 2 = 0 THEN j * 20 + i % 50 END, CASE WHEN i % 2 = 0 THEN j * 20 + 15 + i % 50 END, CASE WHEN i % 2 = 1 THEN (j * 7 + i) % 80 END, 900
		FROM generate_series(0, 99999) i, generate_series(0, 9) j`,
	`INSERT INTO records (version, sort_key, indexed_at, collection, did, rkey, cid, rev, filter, value)
		SELECT i, -i, now(), 'pub.layers.graph.graphEdge', 'did:plc:repo' || i % 100, 'g' || i, 'c', 'r', NULL, json_build_object('edgeType', 'before',
			'source', json_build_object('recordRef', 'at://did:plc:repo' || i % 100 || '/pub.layers.expression.expression/e' || i),
			'target', json_build_object('recordRef', 'at://did:plc:repo' || (i * 3) % 100 || '/pub.layers.expression.expression/e' || (i * 3) % 20000))
		FROM generate_series(1, 40000) i`,
	`INSERT INTO refs (target_hash, collection, did, rkey, path, target)
		SELECT 0, 'pub.layers.graph.graphEdge', 'did:plc:repo' || i % 100, 'g' || i, 'source.recordRef', 'at://did:plc:repo' || i % 100 || '/pub.layers.expression.expression/e' || i FROM generate_series(1, 40000) i`,
	"ANALYZE",
}

// BenchmarkRefresh refreshes the statistics of a million annotations, once from empty and
// then beside what was there, while a writer applies records one by one.
func BenchmarkRefresh(b *testing.B) {
	db := storetest.New(b)
	ctx := b.Context()
	for _, statement := range large {
		_, err := db.Pool.Exec(ctx, statement)
		require.NoError(b, err)
	}
	_, err := db.Pool.Exec(ctx, "UPDATE clock SET version = 1000000")
	require.NoError(b, err)
	writer := db.Writer(b, nil)
	alone := writesUntil(b, writer, func() { time.Sleep(5 * time.Second) })
	refresher := statistics.NewRefresher(db.Pool, store.NewChanges(db.Pool), 0, silent)
	began := time.Now()
	_, err = refresher.Refresh(ctx)
	require.NoError(b, err)
	first := time.Since(began)
	for b.Loop() {
		_, err = db.Pool.Exec(ctx, "UPDATE annotations SET label = label || '.' WHERE rkey LIKE 'l1234%'")
		require.NoError(b, err)
		beside := writesUntil(b, writer, func() {
			_, err := refresher.Refresh(ctx)
			require.NoError(b, err)
		})
		b.ReportMetric(quantile(beside, 0.5).Seconds()*1000, "beside-p50-ms")
		b.ReportMetric(quantile(beside, 0.99).Seconds()*1000, "beside-p99-ms")
	}
	b.ReportMetric(first.Seconds(), "first-s")
	b.ReportMetric(quantile(alone, 0.5).Seconds()*1000, "alone-p50-ms")
	b.ReportMetric(quantile(alone, 0.99).Seconds()*1000, "alone-p99-ms")
	var size int64
	require.NoError(b, db.Pool.QueryRow(ctx, `SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'm'`).Scan(&size))
	b.ReportMetric(float64(size)/1e6, "views-MB")
}

// writesUntil is how long each of the batches took that were applied while do ran.
func writesUntil(b *testing.B, writer *store.Writer, do func()) (took []time.Duration) {
	b.Helper()
	var over atomic.Bool
	go func() {
		defer over.Store(true)
		do()
	}()
	for i := 0; !over.Load(); i++ {
		began := time.Now()
		require.NoError(b, writer.Apply(b.Context(), store.Batch{Host: "relay.test", Cursor: 1, Changes: []store.Change{text("line", "four")}}))
		took = append(took, time.Since(began))
	}
	return took
}

func quantile(all []time.Duration, q float64) time.Duration {
	slices.Sort(all)
	return all[int(q*float64(len(all)-1))]
}

-- Statistics: four materialised views, of one moment, and when that was. Nothing in
-- them is of accounts that are not active.

-- +goose Up

CREATE TABLE statistics (
	single       boolean PRIMARY KEY DEFAULT true CHECK (single),
	refreshed_at timestamptz,                            -- the moment that the views show; NULL: they are empty
	seconds      double precision NOT NULL DEFAULT 0,    -- that the last refresh took
	failed_at    timestamptz,                            -- of the last attempt, if it failed
	error        text NOT NULL DEFAULT ''
);
INSERT INTO statistics DEFAULT VALUES;

-- A record's JSON without U+0000, at which PostgreSQL's functions fail. What stands
-- in its place has as many bytes.
CREATE FUNCTION readable(value json) RETURNS json
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN CASE WHEN strpos(value::text, '\u0000') = 0 THEN value
		ELSE replace(replace(value::text, '\\', '\/'), '\u0000', '\u0001')::json END;

-- How a filter names a record; see FilterTerm in internal/record.
CREATE FUNCTION record_term(uri text) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN CASE WHEN octet_length(uri) <= 512 THEN uri ELSE 'sha256:' || encode(sha256(convert_to(uri, 'UTF8')), 'hex') END;

-- What ranges that do not overlap add up to.
CREATE FUNCTION total_length(ranges int8multirange) RETURNS bigint
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint FROM unnest(ranges) AS r);

CREATE VIEW shown_records AS
	SELECT r.collection, r.did, r.rkey, r.filter, r.value FROM records r
	WHERE NOT EXISTS (SELECT FROM repos WHERE repos.did = r.did AND NOT repos.active);

CREATE VIEW shown_expressions AS
	SELECT did, rkey, record_term('at://' || did || '/' || collection || '/' || rkey) AS term, filter, value
	FROM shown_records WHERE collection = 'pub.layers.expression.expression';

-- Layers on an expression that is there.
CREATE VIEW shown_layers AS
	SELECT l.did, l.rkey, e.did AS expression_did, e.rkey AS expression_rkey, e.term,
		coalesce(l.filter ->> 'kind', '') COLLATE "C" AS kind, coalesce(l.filter ->> 'subkind', '') COLLATE "C" AS subkind, l.value
	FROM shown_records l JOIN shown_expressions e ON e.term = l.filter ->> 'expression'
	WHERE l.collection = 'pub.layers.annotation.annotationLayer';

-- Memberships of corpora that are there, with the expression where that is there too.
CREATE VIEW shown_members AS
	SELECT c.did AS corpus_did, c.rkey AS corpus_rkey, x.target, coalesce(m.filter ->> 'split', '') COLLATE "C" AS split,
		e.did AS expression_did, e.rkey AS expression_rkey
	FROM shown_records m
	JOIN shown_records c ON c.collection = 'pub.layers.corpus.corpus'
		AND record_term('at://' || c.did || '/' || c.collection || '/' || c.rkey) = m.filter ->> 'corpusRef'
	JOIN refs x ON x.collection = m.collection AND x.did = m.did AND x.rkey = m.rkey AND x.path = 'expressionRef'
	LEFT JOIN shown_expressions e ON e.term = record_term(x.target)
	WHERE m.collection = 'pub.layers.corpus.membership';

-- The expressions of each corpus, and those of all under the empty name.
CREATE VIEW corpus_expressions AS
	SELECT DISTINCT corpus_did, corpus_rkey, expression_did, expression_rkey FROM shown_members WHERE expression_did IS NOT NULL
	UNION ALL SELECT '', '', did, rkey FROM shown_expressions;

-- How much of an expression's text annotations mark, as a whole and for each kind and
-- subkind of layers: bytes by their spans, and tokens of the tokenizations that the
-- layers count in. What is marked twice counts once, and what lies beyond the text not at all.
CREATE MATERIALIZED VIEW annotation_coverage AS
WITH marked AS (
	SELECT did, rkey, count(*) AS annotations,
		range_agg(int8range(byte_start, byte_end)) FILTER (WHERE byte_start < byte_end) AS bytes,
		range_agg(int8range(token_index, token_index + 1)) FILTER (WHERE token_index >= 0) AS tokens
	FROM annotations WHERE collection = 'pub.layers.annotation.annotationLayer' GROUP BY did, rkey
), layer AS (
	SELECT l.expression_did AS did, l.expression_rkey AS rkey, l.term, l.kind, l.subkind, coalesce(m.annotations, 0) AS annotations, m.bytes, m.tokens,
		CASE WHEN m.tokens IS NOT NULL THEN (readable(l.value) -> 'tokenizationId' -> 'value')::text END AS tokenization
	FROM shown_layers l LEFT JOIN marked m USING (did, rkey)
), tokenization AS (
	SELECT coalesce(record_term(t."expressionRef"), s.filter ->> 'expression') AS term, (t.uuid -> 'value')::text AS id, max(json_array_length(t.tokens)) AS tokens
	FROM shown_records s CROSS JOIN LATERAL json_to_recordset(readable(s.value) -> 'tokenizations') t ("expressionRef" text, uuid json, tokens json)
	WHERE s.collection = 'pub.layers.segmentation.segmentation' GROUP BY 1, 2
), tokenized AS (
	SELECT l.did, l.rkey, l.kind, l.subkind, t.tokens, total_length(range_agg(l.tokens) * int8multirange(int8range(0, t.tokens))) AS covered
	FROM layer l JOIN tokenization t ON t.term = l.term AND t.id = l.tokenization
	GROUP BY GROUPING SETS ((l.did, l.rkey, l.kind, l.subkind, t.id, t.tokens), (l.did, l.rkey, t.id, t.tokens))
), tokens AS (
	SELECT did, rkey, kind, subkind, sum(tokens) AS tokens, sum(covered) AS covered FROM tokenized GROUP BY did, rkey, kind, subkind
), spanned AS (
	SELECT did, rkey, kind, subkind, count(*) AS layers, sum(annotations) AS annotations, range_agg(bytes) AS bytes
	FROM layer GROUP BY GROUPING SETS ((did, rkey, kind, subkind), (did, rkey))
)
SELECT e.did, e.rkey, s.kind IS NULL AS whole, coalesce(s.kind, '') COLLATE "C" AS kind, coalesce(s.subkind, '') COLLATE "C" AS subkind,
	coalesce(s.layers, 0) AS layers, coalesce(s.annotations, 0)::bigint AS annotations, coalesce(e.bytes, 0)::bigint AS bytes,
	total_length(s.bytes * int8multirange(int8range(0, coalesce(e.bytes, 0)))) AS covered_bytes,
	coalesce(t.tokens, 0)::bigint AS tokens, coalesce(t.covered, 0)::bigint AS covered_tokens
FROM (SELECT did, rkey, octet_length(readable(value) ->> 'text') AS bytes FROM shown_expressions) e
LEFT JOIN spanned s USING (did, rkey)
LEFT JOIN tokens t ON t.did = s.did AND t.rkey = s.rkey AND coalesce(t.kind, chr(1)) = coalesce(s.kind, chr(1)) AND coalesce(t.subkind, chr(1)) = coalesce(s.subkind, chr(1))
WITH NO DATA;
CREATE UNIQUE INDEX annotation_coverage_key ON annotation_coverage (did, rkey, whole DESC, kind, subkind);

-- How often layers of each kind and subkind use a label, in each corpus and, under the
-- empty name, in all.
CREATE MATERIALIZED VIEW label_distribution AS
WITH labelled AS (
	SELECT did, rkey, label, count(*) AS annotations FROM annotations
	WHERE collection = 'pub.layers.annotation.annotationLayer' AND label <> '' GROUP BY did, rkey, label
), used AS (
	SELECT l.expression_did, l.expression_rkey, l.kind, l.subkind, u.label, sum(u.annotations) AS annotations, count(*) AS layers
	FROM shown_layers l JOIN labelled u USING (did, rkey) GROUP BY 1, 2, 3, 4, 5
)
SELECT c.corpus_did, c.corpus_rkey, u.kind, u.subkind, u.label, sum(u.annotations)::bigint AS annotations, sum(u.layers)::bigint AS layers
FROM corpus_expressions c JOIN used u USING (expression_did, expression_rkey)
GROUP BY 1, 2, 3, 4, 5
WITH NO DATA;
CREATE UNIQUE INDEX label_distribution_key ON label_distribution (corpus_did, corpus_rkey, label, kind, subkind);
CREATE INDEX label_distribution_most ON label_distribution (corpus_did, corpus_rkey, annotations DESC, label, kind, subkind);

-- What each corpus has, and under the empty name all of them and what is in none: as
-- a whole, with its members, and for each kind and subkind of layers.
CREATE MATERIALIZED VIEW corpus_statistics AS
WITH counted AS (
	SELECT c.corpus_did AS did, c.corpus_rkey AS rkey, a.whole, a.kind, a.subkind, count(*) AS expressions, sum(a.layers)::bigint AS layers,
		sum(a.annotations)::bigint AS annotations, sum(a.bytes)::bigint AS bytes, sum(a.covered_bytes)::bigint AS covered_bytes,
		sum(a.tokens)::bigint AS tokens, sum(a.covered_tokens)::bigint AS covered_tokens
	FROM corpus_expressions c JOIN annotation_coverage a ON a.did = c.expression_did AND a.rkey = c.expression_rkey
	GROUP BY 1, 2, 3, 4, 5
), named AS (
	SELECT did, rkey, true AS whole, '' AS kind, '' AS subkind FROM shown_records WHERE collection = 'pub.layers.corpus.corpus'
	UNION ALL SELECT '', '', true, '', ''
), member AS (
	SELECT corpus_did AS did, corpus_rkey AS rkey, count(*) AS memberships, count(DISTINCT target) FILTER (WHERE expression_did IS NULL) AS dangling
	FROM shown_members GROUP BY 1, 2
), split AS (
	SELECT did, rkey, jsonb_agg(jsonb_build_object('value', split, 'count', n) ORDER BY n DESC, split) AS splits FROM (
		SELECT corpus_did AS did, corpus_rkey AS rkey, split, count(DISTINCT target) AS n, row_number() OVER (PARTITION BY corpus_did, corpus_rkey ORDER BY count(DISTINCT target) DESC, split) AS place
		FROM shown_members WHERE split <> '' GROUP BY 1, 2, 3) s
	WHERE place <= 50 GROUP BY 1, 2
), spoken AS (
	SELECT did, rkey, jsonb_agg(jsonb_build_object('value', language, 'count', n) ORDER BY n DESC, language) AS languages, max(place) AS count FROM (
		SELECT c.corpus_did AS did, c.corpus_rkey AS rkey, lower(t.language) AS language, count(DISTINCT (e.did, e.rkey)) AS n,
			row_number() OVER (PARTITION BY c.corpus_did, c.corpus_rkey ORDER BY count(DISTINCT (e.did, e.rkey)) DESC, lower(t.language)) AS place
		FROM corpus_expressions c JOIN shown_expressions e ON e.did = c.expression_did AND e.rkey = c.expression_rkey
		CROSS JOIN LATERAL jsonb_array_elements_text(CASE jsonb_typeof(e.filter -> 'languages') WHEN 'array' THEN e.filter -> 'languages' END) t (language)
		GROUP BY 1, 2, 3) s
	WHERE place <= 50 GROUP BY 1, 2
), author AS (
	SELECT c.corpus_did AS did, c.corpus_rkey AS rkey, count(DISTINCT l.did) AS annotators
	FROM corpus_expressions c JOIN shown_layers l USING (expression_did, expression_rkey) GROUP BY 1, 2
)
SELECT did, rkey, whole, kind, subkind, coalesce(n.expressions, 0) AS expressions, coalesce(n.layers, 0) AS layers, coalesce(n.annotations, 0) AS annotations,
	coalesce(n.bytes, 0) AS bytes, coalesce(n.covered_bytes, 0) AS covered_bytes, coalesce(n.tokens, 0) AS tokens, coalesce(n.covered_tokens, 0) AS covered_tokens,
	coalesce(m.memberships, 0) AS memberships, coalesce(m.dangling, 0) AS dangling, coalesce(a.annotators, 0) AS annotators,
	CASE WHEN whole THEN coalesce(l.languages, '[]') END AS languages, CASE WHEN whole THEN coalesce(s.splits, '[]') END AS splits
FROM named FULL JOIN counted n USING (did, rkey, whole, kind, subkind)
LEFT JOIN member m USING (did, rkey) LEFT JOIN split s USING (did, rkey) LEFT JOIN spoken l USING (did, rkey) LEFT JOIN author a USING (did, rkey)
WITH NO DATA;
CREATE UNIQUE INDEX corpus_statistics_key ON corpus_statistics (did, rkey, whole DESC, kind, subkind);

-- How densely records refer to one another: 'references' by collection, each pair of
-- records once; and 'relations' by type, those that graph edges state between records or
-- objects in them. An edge is resolved where what it leads to is there, and within where
-- that is of the same collection; of relations both ends have to be there.
CREATE MATERIALIZED VIEW graph_density AS
WITH node AS (
	SELECT collection, did, rkey FROM shown_records
), reference AS (
	SELECT x.collection, t.collection AS target FROM (
		SELECT DISTINCT r.collection, r.did, r.rkey, x.target FROM refs x JOIN node r USING (collection, did, rkey)
		WHERE starts_with(x.target, 'at://') AND x.target <> 'at://' || r.did || '/' || r.collection || '/' || r.rkey) x
	LEFT JOIN node t ON t.did = split_part(x.target, '/', 3) AND t.collection = split_part(x.target, '/', 4) AND t.rkey = split_part(x.target, '/', 5)
), stated AS (
	SELECT readable(value) AS edge FROM shown_records WHERE collection = 'pub.layers.graph.graphEdge'
	UNION ALL
	SELECT e FROM shown_records CROSS JOIN LATERAL json_array_elements(readable(value) -> 'edges') e WHERE collection = 'pub.layers.graph.graphEdgeSet'
), ends AS (
	SELECT coalesce(edge ->> 'edgeType', '') AS type, edge -> 'source' ->> 'recordRef' AS source, coalesce(edge -> 'source' -> 'objectId' ->> 'value', '') AS source_object,
		edge -> 'target' ->> 'recordRef' AS target, coalesce(edge -> 'target' -> 'objectId' ->> 'value', '') AS target_object
	FROM stated
), relation AS (
	SELECT DISTINCT type, source || '#' || source_object AS source, target || '#' || target_object AS target, s.did IS NOT NULL AND t.did IS NOT NULL AS resolved
	FROM ends
	LEFT JOIN node s ON s.did = split_part(source, '/', 3) AND s.collection = split_part(source, '/', 4) AND s.rkey = split_part(source, '/', 5)
	LEFT JOIN node t ON t.did = split_part(target, '/', 3) AND t.collection = split_part(target, '/', 4) AND t.rkey = split_part(target, '/', 5)
	WHERE source IS NOT NULL AND target IS NOT NULL
)
SELECT 'references' AS graph, n.collection IS NULL AS whole, coalesce(n.collection, '') COLLATE "C" AS name, n.nodes,
	coalesce(e.edges, 0) AS edges, coalesce(e.resolved, 0) AS resolved, CASE WHEN n.collection IS NULL THEN coalesce(e.resolved, 0) ELSE coalesce(e.within, 0) END AS within
FROM (SELECT collection, count(*) AS nodes FROM node GROUP BY ROLLUP (collection)) n
LEFT JOIN (SELECT collection, count(*) AS edges, count(target) AS resolved, count(*) FILTER (WHERE target = collection) AS within FROM reference GROUP BY ROLLUP (collection)) e
	ON coalesce(e.collection, '') = coalesce(n.collection, '')
UNION ALL
SELECT 'relations', e.whole, e.name, n.nodes, e.edges, e.resolved, e.resolved
FROM (SELECT GROUPING(type) = 1 AS whole, coalesce(type, '') COLLATE "C" AS name, count(DISTINCT (source, target)) AS edges, count(DISTINCT (source, target)) FILTER (WHERE resolved) AS resolved
	FROM relation GROUP BY ROLLUP (type)) e
JOIN (SELECT GROUPING(type) = 1 AS whole, coalesce(type, '') COLLATE "C" AS name, count(DISTINCT node) AS nodes
	FROM (SELECT type, source AS node FROM relation UNION SELECT type, target FROM relation) r GROUP BY ROLLUP (type)) n USING (whole, name)
WITH NO DATA;
CREATE UNIQUE INDEX graph_density_key ON graph_density (graph, whole DESC, name);

-- +goose Down
DROP MATERIALIZED VIEW graph_density, corpus_statistics, label_distribution, annotation_coverage;
DROP VIEW corpus_expressions, shown_members, shown_layers, shown_expressions, shown_records;
DROP FUNCTION total_length(int8multirange);
DROP FUNCTION record_term(text);
DROP FUNCTION readable(json);
DROP TABLE statistics;

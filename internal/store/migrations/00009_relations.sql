-- The graph, for deployments without Neo4j and for times when it is away: nodes of
-- records, and the edges that these state. A read table that follows records.

-- +goose Up

-- The row of a deleted record stays, so that a late writer finds the version that it
-- must not go behind.
CREATE TABLE relation_records (
	version    bigint  NOT NULL,
	deleted    boolean NOT NULL,
	did        text COLLATE "C" NOT NULL,
	collection text COLLATE "C" NOT NULL,
	rkey       text COLLATE "C" NOT NULL,
	label      text NOT NULL,
	PRIMARY KEY (did, collection, rkey)
) WITH (fillfactor = 90);

-- A node is known by its URI or, an entry of a knowledge base, by the JSON array of
-- source and identifier; by a hash where that is too long for two of them to fit into
-- an index key, and then the whole name stands beside it.
CREATE TABLE relations (
	place       bigint GENERATED ALWAYS AS IDENTITY,
	type        text COLLATE "C" NOT NULL,
	did         text COLLATE "C" NOT NULL,               -- of the record that states it
	collection  text COLLATE "C" NOT NULL,
	rkey        text COLLATE "C" NOT NULL,
	source      text COLLATE "C" NOT NULL,
	target      text COLLATE "C" NOT NULL,
	long_source text COLLATE "C",
	long_target text COLLATE "C",
	identifier  text COLLATE "C",                        -- in the knowledge base, of a KNOWLEDGE_REF
	properties  json                                     -- json keeps U+0000, which jsonb refuses
);
CREATE INDEX relations_record ON relations (did, collection, rkey);
-- Both have the order in which neighbours are listed.
CREATE INDEX relations_source ON relations (source, type, target, place);
CREATE INDEX relations_target ON relations (target, type, source, place);
CREATE INDEX relations_identifier ON relations (hashtextextended(identifier, 0), target) WHERE identifier IS NOT NULL;

-- +goose Down
DROP TABLE relations, relation_records;

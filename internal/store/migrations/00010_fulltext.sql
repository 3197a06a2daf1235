-- Full text inside PostgreSQL, for deployments without a search server.

-- +goose Up

-- One row a searchable record. That of a deleted record stays, with nothing but its
-- name and version, so that a late writer finds what it must not go behind.
CREATE TABLE search_documents (
	version     bigint  NOT NULL,
	sort_key    bigint  NOT NULL DEFAULT 0,              -- as that of records
	created_at  timestamptz,
	deleted     boolean NOT NULL,
	partial     boolean NOT NULL DEFAULT false,          -- the vector lacks words that did not fit
	collection  text COLLATE "C" NOT NULL,
	did         text COLLATE "C" NOT NULL,
	rkey        text COLLATE "C" NOT NULL,
	cid         text COLLATE "C" NOT NULL DEFAULT '',
	title       text COLLATE "C" NOT NULL DEFAULT '',
	terms       text[] COLLATE "C" NOT NULL DEFAULT '{}', -- field=value
	completions tsvector NOT NULL DEFAULT '',            -- each a beginning of the title, as one lexeme
	vector      tsvector NOT NULL DEFAULT '',            -- words; A: of the title; label=word: of labels
	words       text COLLATE "C" NOT NULL DEFAULT '',    -- ' a word after another ', for each text
	fields      jsonb NOT NULL DEFAULT '{}',             -- the same of fields by their paths
	passages    json NOT NULL DEFAULT '[]',              -- the texts as they were written
	PRIMARY KEY (collection, did, rkey)
) WITH (fillfactor = 90);
CREATE INDEX search_documents_vector ON search_documents USING gin (vector);
CREATE INDEX search_documents_terms ON search_documents USING gin (terms);
CREATE INDEX search_documents_completions ON search_documents USING gin (completions);
CREATE INDEX search_documents_recent ON search_documents (sort_key, did, collection, rkey) WHERE NOT deleted;
CREATE INDEX search_documents_partial ON search_documents (collection) WHERE partial;

-- A label can be longer than what a B-tree takes.
CREATE INDEX annotations_label ON annotations (hashtextextended(label, 0)) WHERE label <> '';

-- +goose Down
DROP INDEX annotations_label;
DROP TABLE search_documents;

-- The truth: records, what they refer to, and the repositories they are in.
-- Names are compared byte by byte (COLLATE "C"): that is how AT Protocol orders
-- them, it is faster, and a new version of the system's locale data cannot
-- corrupt an index.

-- +goose Up

-- The number that orders all changes. A row rather than a sequence, since its lock
-- is held from the draw to the commit: whoever sees a version also sees every
-- change of a lower one. A projection relies on that when it drops the older of two.
CREATE TABLE clock (
	single  boolean PRIMARY KEY DEFAULT true CHECK (single),
	version bigint  NOT NULL
);
INSERT INTO clock (version) VALUES (0);

-- One row a repository that is followed. Every commit updates its row, so each page
-- keeps room for the new version of a row beside the old one: without an entry in
-- any index, and without waiting for vacuum.
CREATE TABLE repos (
	account_seq  bigint  NOT NULL DEFAULT 0,             -- of the last #account event, ...
	updated_at   timestamptz NOT NULL,
	active       boolean NOT NULL DEFAULT true,
	complete     boolean NOT NULL DEFAULT false,         -- indexed from its beginning, or fetched whole
	did          text COLLATE "C" PRIMARY KEY,
	handle       text COLLATE "C",                       -- NULL: none that holds in both directions
	pds          text NOT NULL DEFAULT '',
	status       text NOT NULL DEFAULT 'active',
	account_host text NOT NULL DEFAULT '',               -- ... which came from this host
	sync         text NOT NULL DEFAULT 'desynchronized'
		CHECK (sync IN ('synchronized', 'desynchronized', 'resyncing')),
	reason       text NOT NULL DEFAULT '',
	rev          text COLLATE "C" NOT NULL DEFAULT '',
	commit_cid   text COLLATE "C" NOT NULL DEFAULT '',
	data_cid     text COLLATE "C" NOT NULL DEFAULT ''
) WITH (fillfactor = 70);

CREATE INDEX repos_handle ON repos (handle) WHERE handle IS NOT NULL;
-- Every read leaves out the records of inactive repositories by asking this index,
-- which is nearly always empty.
CREATE INDEX repos_inactive ON repos (did) WHERE NOT active;

-- sort_key is minus the microseconds from 1970 to min(created_at, indexed_at), as it
-- was when the record was first seen. Negated, one ascending index and one row
-- comparison (sort_key, did, rkey) > (...) give newest first, then by URI, and
-- continue a page exactly where it ended also among thousands of equal times.
CREATE TABLE records (
	version    bigint NOT NULL,
	sort_key   bigint NOT NULL,
	indexed_at timestamptz NOT NULL,
	created_at timestamptz,                              -- as the record claims; NULL where it does not
	collection text COLLATE "C" NOT NULL,
	did        text COLLATE "C" NOT NULL,
	rkey       text COLLATE "C" NOT NULL,
	cid        text COLLATE "C" NOT NULL,
	rev        text COLLATE "C" NOT NULL,                -- of the commit that wrote it
	filter     jsonb,                                    -- what list queries filter on; NULL for nothing
	value      json NOT NULL,
	PRIMARY KEY (collection, did, rkey)
) PARTITION BY LIST (collection);

-- +goose StatementBegin
DO $$
BEGIN
	-- lz4 packs a little less tightly than pglz and several times faster. Partitions inherit it.
	IF EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)) THEN
		ALTER TABLE records ALTER COLUMN value SET COMPRESSION lz4;
	END IF;
END
$$;
-- +goose StatementEnd

-- The collections that have no lexicon. All others have a partition of their own.
CREATE TABLE records_foreign PARTITION OF records DEFAULT WITH (fillfactor = 90);
CREATE INDEX records_foreign_recent ON records_foreign (sort_key, did, collection, rkey);
CREATE INDEX records_foreign_repo ON records_foreign (did, sort_key, collection, rkey);
CREATE INDEX records_foreign_collection ON records_foreign (collection, sort_key, did, rkey);
CREATE INDEX records_foreign_both ON records_foreign (collection, did, sort_key, rkey);

-- The collections with a partition of their own, and the lists that its indexes serve.
CREATE TABLE partitions (
	collection text COLLATE "C" PRIMARY KEY,
	name       text NOT NULL UNIQUE,
	lists      jsonb NOT NULL
);

-- Whom a record refers to. A target may have 8 KB and a B-tree key has at most 2,704
-- bytes, so it is looked up by its hash; after that the index has the order in which
-- the referring records are read.
CREATE TABLE refs (
	collection text COLLATE "C" NOT NULL,
	did        text COLLATE "C" NOT NULL,
	rkey       text COLLATE "C" NOT NULL,
	path       text COLLATE "C" NOT NULL,
	target     text COLLATE "C" NOT NULL
);
CREATE INDEX refs_source ON refs (collection, did, rkey);
CREATE INDEX refs_target ON refs (hashtextextended(target, 0), collection, did, rkey);

-- How far the stream of each host has been applied.
CREATE TABLE cursor (
	host       text COLLATE "C" PRIMARY KEY,
	seq        bigint NOT NULL,
	updated_at timestamptz NOT NULL
) WITH (fillfactor = 10);

-- list_terms is what arrays are indexed by: one hash for each element together with
-- the scope in which lists look for it, as the repository. So the index answers
-- "this repository's records in Yoruba", and the statistics PostgreSQL keeps of it
-- tell a rare pair from a common one, for which walking the list in its order is faster.
-- Unequal terms may have equal hashes: whoever asks also compares the terms.
CREATE FUNCTION list_terms(scope text, terms text[]) RETURNS bigint[]
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN (SELECT array_agg(hashtextextended((scope || chr(1) || term) COLLATE "C", 0)) FROM unnest(terms) AS term);

-- The same for what is indexed. A loop takes a fraction of the time of a subquery here.
-- +goose StatementBegin
CREATE FUNCTION list_terms(scope text, terms jsonb) RETURNS bigint[]
	LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
	AS $$
DECLARE
	hashes bigint[] := '{}';
BEGIN
	IF jsonb_typeof(terms) <> 'array' THEN -- from before the lexicon made an array of it
		terms := jsonb_build_array(terms);
	END IF;
	FOR i IN 0 .. jsonb_array_length(terms) - 1 LOOP
		hashes := hashes || hashtextextended((scope || chr(1) || (terms ->> i)) COLLATE "C", 0);
	END LOOP;
	RETURN hashes;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP TABLE cursor, refs, partitions, records, repos, clock;
DROP FUNCTION list_terms(text, jsonb);
DROP FUNCTION list_terms(text, text[]);

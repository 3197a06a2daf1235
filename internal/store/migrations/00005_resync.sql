-- Repositories that have to be fetched whole, what arrives of them meanwhile, and
-- the search for repositories that the stream does not tell of.

-- +goose Up
ALTER TABLE repos
	-- When the last #account event was made: orders those of different hosts. NULL: not known.
	ADD COLUMN account_time timestamptz,
	-- The highest rev of a commit that holds, also of one that was not applied: what is
	-- fetched must not be older.
	ADD COLUMN seen text COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX repos_unsynchronized ON repos (sync, did) WHERE sync <> 'synchronized';

-- The repositories to be fetched. A row goes in the transaction that makes its
-- repository synchronized.
CREATE TABLE resyncs (
	requested_at timestamptz NOT NULL DEFAULT now(),     -- for the last time
	begun_at     timestamptz,                            -- the last attempt
	due_at       timestamptz NOT NULL DEFAULT now(),
	attempts     integer NOT NULL DEFAULT 0,             -- that failed
	candidate    boolean NOT NULL DEFAULT false,         -- it may have no record of a followed collection
	asked        boolean NOT NULL DEFAULT false,         -- somebody wants it fetched, also should its chain mend
	did          text COLLATE "C" PRIMARY KEY,
	reason       text NOT NULL,
	host         text COLLATE "C" NOT NULL DEFAULT '',   -- that the last attempt failed at
	error        text NOT NULL DEFAULT ''
) WITH (fillfactor = 70);
CREATE INDEX resyncs_due ON resyncs (due_at, did);

INSERT INTO resyncs (did, reason, asked)
SELECT did, coalesce(nullif(reason, ''), 'followed from the middle of its history'), NOT complete
FROM repos WHERE sync <> 'synchronized' OR NOT complete;

-- Events of repositories that are being fetched, in the order of the stream.
CREATE TABLE held_events (
	id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	seq   bigint NOT NULL,
	did   text COLLATE "C" NOT NULL,
	host  text COLLATE "C" NOT NULL,
	rev   text COLLATE "C" NOT NULL,
	frame bytea NOT NULL
);
CREATE INDEX held_events_did ON held_events (did, id);
-- The blocks inside a frame are hashes and packed data.
ALTER TABLE held_events ALTER COLUMN frame SET STORAGE EXTERNAL;

-- How far the search for repositories has come for each collection.
CREATE TABLE discoveries (
	started_at  timestamptz NOT NULL DEFAULT now(),      -- tells one search from the next
	finished_at timestamptz,
	found       bigint NOT NULL DEFAULT 0,
	collection  text COLLATE "C" PRIMARY KEY,
	host        text COLLATE "C" NOT NULL DEFAULT '',
	method      text COLLATE "C" NOT NULL DEFAULT '',
	cursor      text NOT NULL DEFAULT ''
);

-- +goose Down
DROP TABLE discoveries, held_events, resyncs;
DROP INDEX repos_unsynchronized;
ALTER TABLE repos DROP COLUMN account_time, DROP COLUMN seen;

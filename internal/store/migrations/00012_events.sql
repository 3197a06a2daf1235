-- What has changed in the index, for those who follow it.

-- +goose Up

-- One row a transaction of the writer, with all that it changed: a row for each
-- change, or an array for each property, would cost the one session that everything
-- goes through several times as much. What a record is stays in records.
CREATE TABLE events (
	version bigint PRIMARY KEY,                          -- of the last of them
	at      timestamptz NOT NULL DEFAULT now(),
	changes integer NOT NULL,
	content bytea   NOT NULL                             -- see eventcode.go
) WITH (
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
	autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000
);
-- Mostly hashes, which packing does not make smaller.
ALTER TABLE events ALTER COLUMN content SET STORAGE EXTERNAL;

-- Events up to after are gone, or never were recorded.
CREATE TABLE event_log (
	single    boolean PRIMARY KEY DEFAULT true CHECK (single),
	recording boolean NOT NULL DEFAULT false,
	after     bigint  NOT NULL,
	purged_at timestamptz NOT NULL DEFAULT '-infinity'   -- accounts that were deleted before have no records' events in it
);
INSERT INTO event_log (after) SELECT version FROM clock;

-- +goose Down
DROP TABLE event_log, events;

-- The outbox rows of a large batch are packed into one row of sweeps for each projection:
-- a row for each record was a tenth of the time of the one session that writes
-- everything. Claims write them out, claimed already, where they used to update them.

-- +goose Up
ALTER TABLE sweeps
	ADD COLUMN packed integer NOT NULL DEFAULT 0,   -- how many rows the arrays hold; 0 sweeps what the other columns say
	ADD COLUMN taken integer NOT NULL DEFAULT 0,    -- how many of them have been written out, from the first
	ADD COLUMN versions bigint[],
	ADD COLUMN collections text[] COLLATE "C",
	ADD COLUMN dids text[] COLLATE "C",
	ADD COLUMN rkeys text[] COLLATE "C";
ALTER TABLE sweeps ALTER COLUMN versions SET STORAGE EXTERNAL, ALTER COLUMN collections SET STORAGE EXTERNAL,
	ALTER COLUMN dids SET STORAGE EXTERNAL, ALTER COLUMN rkeys SET STORAGE EXTERNAL;
CREATE INDEX sweeps_packed ON sweeps (target, id) WHERE packed > 0;

-- +goose Down
INSERT INTO outbox (target, version, collection, did, rkey)
	SELECT target, k.version, k.collection, k.did, k.rkey
	FROM sweeps, unnest(versions[taken + 1:], collections[taken + 1:], dids[taken + 1:], rkeys[taken + 1:]) AS k (version, collection, did, rkey)
	WHERE packed > 0;
DELETE FROM sweeps WHERE packed > 0;
DROP INDEX sweeps_packed;
ALTER TABLE sweeps DROP COLUMN packed, DROP COLUMN taken, DROP COLUMN versions, DROP COLUMN collections, DROP COLUMN dids, DROP COLUMN rkeys;

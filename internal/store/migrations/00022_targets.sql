-- A record has the hashes of what it refers to, by which its rows in refs are found in
-- the index of targets. The index of refs by their record's version is gone: each
-- reference went into it too, in the one session that writes everything.

-- +goose Up
ALTER TABLE records ADD COLUMN targets bigint[] NOT NULL DEFAULT '{}'; -- each once, in their order
UPDATE records r SET targets = f.targets
FROM (SELECT version, array_agg(DISTINCT target_hash ORDER BY target_hash) AS targets FROM refs GROUP BY version) f
WHERE f.version = r.version;
DROP INDEX refs_source;
ALTER TABLE refs DROP COLUMN version;

-- +goose Down
ALTER TABLE refs ADD COLUMN version bigint;
UPDATE refs SET version = r.version FROM records r WHERE r.collection = refs.collection AND r.did = refs.did AND r.rkey = refs.rkey;
DELETE FROM refs WHERE version IS NULL;
ALTER TABLE refs ALTER COLUMN version SET NOT NULL;
CREATE INDEX refs_source ON refs (version);
ALTER TABLE records DROP COLUMN targets;

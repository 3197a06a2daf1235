-- References are found by numbers: those of a record by its version, in an index that
-- grows at its end, and those to a target by a hash that the program works out, so that
-- it can bring rows in the index's order. Both indexes were of names, into the middle of
-- which every record went. The hash is the first eight bytes of SHA-256, as events have it.

-- +goose Up
ALTER TABLE refs ADD COLUMN version bigint, ADD COLUMN target_hash bigint;
DROP INDEX refs_source, refs_target;
UPDATE refs SET version = r.version, target_hash = ('x' || encode(substring(sha256(convert_to(target, 'UTF8')) FOR 8), 'hex'))::bit(64)::bigint
FROM records r WHERE r.collection = refs.collection AND r.did = refs.did AND r.rkey = refs.rkey;
DELETE FROM refs WHERE version IS NULL;
ALTER TABLE refs ALTER COLUMN version SET NOT NULL, ALTER COLUMN target_hash SET NOT NULL;
CREATE INDEX refs_source ON refs (version);
CREATE INDEX refs_target ON refs (target_hash, collection, did, rkey);

-- +goose Down
DROP INDEX refs_source, refs_target;
ALTER TABLE refs DROP COLUMN version, DROP COLUMN target_hash;
CREATE INDEX refs_source ON refs (collection, did, rkey);
CREATE INDEX refs_target ON refs (hashtextextended(target, 0), collection, did, rkey);

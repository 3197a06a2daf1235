-- A partition holds one collection, so the key of its records is (did, rkey): without
-- the collection's name, some forty bytes that are the same in every entry, its index is
-- half as large and is compared faster. PostgreSQL has primary keys of partitioned tables
-- only with the column that they are partitioned by: each partition has its own.

-- +goose Up
-- +goose StatementBegin
DO $$
DECLARE
	name text;
BEGIN
	ALTER TABLE records DROP CONSTRAINT records_pkey;
	FOR name IN SELECT p.name FROM partitions p LOOP
		EXECUTE format('CREATE UNIQUE INDEX ON %I (did, rkey)', name);
	END LOOP;
	CREATE UNIQUE INDEX ON records_foreign (collection, did, rkey);
END
$$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
DO $$
DECLARE
	name text;
BEGIN
	FOR name IN SELECT indexrelid::regclass FROM pg_index WHERE indisunique
		AND (indrelid = 'records_foreign'::regclass OR indrelid IN (SELECT to_regclass(p.name) FROM partitions p)) LOOP
		EXECUTE 'DROP INDEX ' || name;
	END LOOP;
	ALTER TABLE records ADD PRIMARY KEY (collection, did, rkey);
END
$$;
-- +goose StatementEnd

-- Values that fit into a page are stored as they are where PostgreSQL was built without
-- lz4: what it packs with then, pglz, took a tenth of the time of the one session that
-- writes everything. Partitions made from now on have the setting from the beginning.

-- +goose Up
-- +goose StatementBegin
DO $$
DECLARE
	partition regclass;
BEGIN
	IF (SELECT attcompression = 'l' FROM pg_attribute WHERE attrelid = 'records'::regclass AND attname = 'value') THEN
		RETURN;
	END IF;
	FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'records'::regclass LOOP
		EXECUTE format('ALTER TABLE %s SET (toast_tuple_target = 8160)', partition);
	END LOOP;
END
$$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
DO $$
DECLARE
	partition regclass;
BEGIN
	FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'records'::regclass LOOP
		EXECUTE format('ALTER TABLE %s RESET (toast_tuple_target)', partition);
	END LOOP;
END
$$;
-- +goose StatementEnd

-- What kept answers are judged by: when what they follow from was changed last.

-- +goose Up

-- One row a collection with a partition, besides '' for accounts that became active or
-- inactive, '*' for all other collections, and names of what is computed from records.
-- Each is updated in the transaction of the change, so each page has room for many
-- versions of few rows.
CREATE TABLE changed (
	name    text COLLATE "C" PRIMARY KEY,
	version bigint NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- What came before this table is taken to have changed just now.
INSERT INTO changed SELECT '', version FROM clock;

-- +goose Down
DROP TABLE changed;

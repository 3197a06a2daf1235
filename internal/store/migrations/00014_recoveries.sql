-- Where this database's history was cut off, as by a restore to a point in time.

-- +goose Up

-- The server, and the timeline of it, that the last writer wrote on. No row before the first.
CREATE TABLE lineage (
	single   boolean PRIMARY KEY DEFAULT true CHECK (single),
	server   text NOT NULL,
	timeline text NOT NULL
);

-- Versions between reached and resumed were given to changes that this database does
-- not know any more. Projections, caches and clients may have seen them.
CREATE TABLE recoveries (
	at      timestamptz NOT NULL DEFAULT now(),
	reached bigint NOT NULL,                             -- the last version of what is here
	resumed bigint PRIMARY KEY,                          -- the first that is given out again
	reason  text NOT NULL
);

-- +goose Down
DROP TABLE recoveries, lineage;

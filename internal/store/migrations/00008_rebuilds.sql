-- Projections that are being built anew beside the served ones.

-- +goose Up

-- While a target has a row, every outbox row and every sweep for it has a twin for
-- the target's name with a plus behind it, written in the same transaction.
CREATE TABLE rebuilds (
	started_at timestamptz NOT NULL DEFAULT now(),
	done       bigint  NOT NULL DEFAULT 0,
	total      bigint  NOT NULL DEFAULT 0,
	filled     boolean NOT NULL DEFAULT false,           -- all that was there at first is in it
	promoted   boolean NOT NULL DEFAULT false,           -- it is the served one now
	ended      boolean NOT NULL DEFAULT false,           -- no more twins; those that are there are still carried out
	target     text COLLATE "C" PRIMARY KEY,
	name       text COLLATE "C" NOT NULL,                -- of what is being built
	collection text COLLATE "C" NOT NULL DEFAULT '',     -- the last record that is in it
	did        text COLLATE "C" NOT NULL DEFAULT '',
	rkey       text COLLATE "C" NOT NULL DEFAULT ''
) WITH (fillfactor = 10);

CREATE VIEW following AS
	SELECT collection, target FROM routes
	UNION ALL SELECT routes.collection, routes.target || '+' FROM routes JOIN rebuilds USING (target) WHERE NOT ended;

-- +goose Down
DROP VIEW following;
DROP TABLE rebuilds;

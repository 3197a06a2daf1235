-- The fan-out: which record each projection has yet to catch up with.

-- +goose Up

-- Which projections follow a collection, as the writer was configured when it took
-- its lock.
CREATE TABLE routes (
	collection text COLLATE "C" NOT NULL,
	target     text COLLATE "C" NOT NULL,
	PRIMARY KEY (collection, target)
);

-- A queue: each row is inserted, claimed and deleted within seconds. A claim moves a
-- row from one partial index to the other, so that whoever claims next does not
-- wade through rows that are held; that rules out updates in place, so pages are
-- filled whole. Vacuum comes after a fixed number of dead rows, however large the
-- table once was, and does not pause: it reads little, and what it leaves behind
-- slows every claim.
CREATE TABLE outbox (
	id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	version       bigint NOT NULL,
	enqueued_at   timestamptz NOT NULL DEFAULT now(),
	claimed_until timestamptz,                           -- NULL: nobody has had it yet
	attempts      integer NOT NULL DEFAULT 0,
	target        text COLLATE "C" NOT NULL,
	collection    text COLLATE "C" NOT NULL,
	did           text COLLATE "C" NOT NULL,
	rkey          text COLLATE "C" NOT NULL
) WITH (
	fillfactor = 100,
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
	autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000,
	autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX outbox_ready ON outbox (target, id) WHERE claimed_until IS NULL;
CREATE INDEX outbox_claimed ON outbox (target, claimed_until) WHERE claimed_until IS NOT NULL;

-- A sweep stands for outbox rows that are not written yet: those of a whole collection,
-- of a repository in one, or of all records that refer to another. Claims turn it
-- into rows bit by bit, so that no transaction grows with the size of what it concerns.
CREATE TABLE sweeps (
	id               bigint GENERATED ALWAYS AS IDENTITY,
	version          bigint NOT NULL,
	enqueued_at      timestamptz NOT NULL DEFAULT now(),
	target           text COLLATE "C" NOT NULL,
	collection       text COLLATE "C" NOT NULL DEFAULT '',   -- '' sweeps what refers to referent
	did              text COLLATE "C" NOT NULL DEFAULT '',   -- '' sweeps every repository
	referent         text COLLATE "C" NOT NULL DEFAULT '',
	after_collection text COLLATE "C" NOT NULL DEFAULT '',   -- the last key that was turned into a row
	after_did        text COLLATE "C" NOT NULL DEFAULT '',
	after_rkey       text COLLATE "C" NOT NULL DEFAULT '',
	PRIMARY KEY (target, id)
) WITH (
	fillfactor = 50,
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000
);

-- +goose Down
DROP TABLE sweeps, outbox, routes;

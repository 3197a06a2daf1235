-- Dead letters that are to be put through again.

-- +goose Up
ALTER TABLE dead_letters
	ADD COLUMN requested_at timestamptz,                 -- NULL: nobody asks for it
	ADD COLUMN started_at   timestamptz,                 -- NULL: not begun; what it waits for is under way
	ADD COLUMN outbox_id    bigint,                      -- of a projection: the outbox row that tries again
	ADD COLUMN attempts     integer NOT NULL DEFAULT 0,
	ADD COLUMN outcome      text NOT NULL DEFAULT '';    -- of the last attempt
CREATE INDEX dead_letters_requested ON dead_letters (requested_at, id) WHERE requested_at IS NOT NULL;
CREATE INDEX dead_letters_stage ON dead_letters (stage);

-- +goose Down
DROP INDEX dead_letters_stage, dead_letters_requested;
ALTER TABLE dead_letters DROP COLUMN requested_at, DROP COLUMN started_at, DROP COLUMN outbox_id,
	DROP COLUMN attempts, DROP COLUMN outcome;

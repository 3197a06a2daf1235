-- What could not be indexed, with all that is needed to say why and to try again.

-- +goose Up
CREATE TABLE dead_letters (
	id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	seq        bigint NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	host       text COLLATE "C" NOT NULL,
	did        text COLLATE "C" NOT NULL,
	collection text COLLATE "C" NOT NULL,
	rkey       text COLLATE "C" NOT NULL,
	rev        text COLLATE "C" NOT NULL,
	cid        text COLLATE "C" NOT NULL,
	stage      text COLLATE "C" NOT NULL,
	class      text COLLATE "C" NOT NULL,
	path       text NOT NULL,
	reason     text NOT NULL,
	expected   text NOT NULL,
	received   text NOT NULL,
	raw        bytea,
	-- A hash of what was at fault: the same failure met again, as after a replay of
	-- the stream, is the same letter.
	identity   bytea NOT NULL UNIQUE
);
-- By hash, since an event at fault may name anything, of any length.
CREATE INDEX dead_letters_record ON dead_letters (hashtextextended(did || '/' || collection || '/' || rkey, 0));
CREATE INDEX dead_letters_did ON dead_letters (hashtextextended(did, 0), id);

-- +goose Down
DROP TABLE dead_letters;

-- What operators did, and the tokens by which they did it. The API may read neither.

-- +goose Up

CREATE TABLE admin_actions (
	id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	at         timestamptz NOT NULL DEFAULT clock_timestamp(),
	actor      text NOT NULL,              -- a DID, 'operator' for who has the static token, or a login of the machine
	via        text NOT NULL,              -- http or cli
	action     text NOT NULL,              -- such as dlq.replay
	subject    text NOT NULL,              -- what it was done to
	outcome    text NOT NULL CHECK (outcome IN ('begun', 'done', 'failed', 'refused')),
	detail     text NOT NULL,
	request_id text NOT NULL
);

-- A log that can be mended by mistake is none. Whoever owns the table can still drop it.
-- +goose StatementBegin
CREATE FUNCTION admin_actions_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE 'what operators did is not changed afterwards' USING ERRCODE = 'insufficient_privilege';
END $$;
-- +goose StatementEnd
CREATE TRIGGER stay BEFORE UPDATE OR DELETE OR TRUNCATE ON admin_actions FOR EACH STATEMENT EXECUTE FUNCTION admin_actions_stay();

-- Tokens that were used, until they expire: each is good for one request.
CREATE TABLE admin_tokens (
	hash       bytea PRIMARY KEY,
	expires_at timestamptz NOT NULL
);

-- +goose Down
DROP TABLE admin_tokens, admin_actions;
DROP FUNCTION admin_actions_stay();

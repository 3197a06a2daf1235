-- Where traces are exported: which trace the changes of a batch belong to, so that
-- what the projections do of them can go on with it. Rows live for minutes.

-- +goose Up

CREATE TABLE traces (
	last  bigint PRIMARY KEY,   -- version of the batch's last change
	first bigint NOT NULL,
	at    timestamptz NOT NULL DEFAULT now(),
	parent text NOT NULL        -- W3C traceparent
);

-- +goose Down
DROP TABLE traces;

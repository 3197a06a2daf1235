-- When a repository was last known to be indexed whole: tells those that a search for
-- repositories need not have fetched again.

-- +goose Up
ALTER TABLE repos ADD COLUMN complete_at timestamptz;
UPDATE repos SET complete_at = updated_at WHERE complete;
CREATE INDEX repos_complete_at ON repos (complete_at);

-- +goose Down
DROP INDEX repos_complete_at;
ALTER TABLE repos DROP COLUMN complete_at;

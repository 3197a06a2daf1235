package storetest

import (
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// SetStatus gives an account a status, as an #account event would, and nothing else.
func SetStatus(t testing.TB, db *Database, did syntax.DID, status string) {
	t.Helper()
	_, err := db.Pool.Exec(t.Context(), `
		INSERT INTO repos (did, status, active, updated_at) VALUES ($1, $2, $2 = 'active', now())
		ON CONFLICT (did) DO UPDATE SET status = excluded.status, active = excluded.active`, did, status)
	if err != nil {
		t.Fatalf("set the status of %s: %v", did, err)
	}
}

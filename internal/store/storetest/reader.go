package storetest

import (
	"context"
	"crypto/rand"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/layers-pub/layers-appview/internal/store"
)

// Reads is a pool as an API process has it: its login is a member of the reader's
// role, and has no other right. Both are gone when the test ends.
func (d *Database) Reads(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := store.Open(t.Context(), store.Config{URL: Login(t, d.URL, store.ReaderRole), MaxConns: 8, ReadOnly: true, Name: t.Name()})
	if err != nil {
		t.Fatalf("open the database as a reader: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// Login makes a login that is a member of roles and of nothing else, and returns the
// URL by which it reaches the database. It is dropped when the test ends, with what it owns.
func Login(t testing.TB, address string, roles ...string) string {
	t.Helper()
	name, password := "layers_test_"+strings.ToLower(rand.Text()), rand.Text()
	statement := "CREATE ROLE " + name + " LOGIN PASSWORD '" + password + "'"
	if len(roles) > 0 {
		statement += " IN ROLE " + strings.Join(roles, ", ")
	}
	if err := execute(t.Context(), address, statement); err != nil {
		t.Fatalf("make a login: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), setupTime)
		defer cancel()
		for _, statement := range []string{"DROP OWNED BY " + name, "DROP ROLE " + name} {
			if err := execute(ctx, address, statement); err != nil {
				t.Errorf("drop a login: %v", err)
			}
		}
	})
	u, err := url.Parse(address)
	if err != nil {
		t.Fatalf("the database's URL: %v", err)
	}
	u.User = url.UserPassword(name, password)
	return u.String()
}

package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/layers-pub/layers-appview/internal/store"
)

// A copy of a migrated database is made in a fraction of the time of the
// migration. Templates are named after the test program and the partitions, so one
// that an older program made is never met; they are dropped a day later.

const (
	templatePrefix       = "layers_template_"
	templateLock   int64 = 0x6c61796572730003
)

var (
	templatesMu sync.Mutex
	templates   = map[string]string{} // by partitions, as JSON
)

// ensureTemplate returns the name of a migrated database to copy.
func ensureTemplate(ctx context.Context, admin string, partitions []store.Partition) (string, error) {
	encoded, err := json.Marshal(partitions)
	if err != nil {
		return "", err
	}
	templatesMu.Lock()
	defer templatesMu.Unlock()
	if name, ok := templates[string(encoded)]; ok {
		return name, nil
	}
	program, err := programHash()
	if err != nil {
		return "", fmt.Errorf("read the test program: %w", err)
	}
	sum := sha256.Sum256(append(program, encoded...))
	name := templatePrefix + hex.EncodeToString(sum[:12])
	if err := makeTemplate(ctx, admin, name, partitions); err != nil {
		return "", err
	}
	templates[string(encoded)] = name
	return name, nil
}

func programHash() ([]byte, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, file)
	return sum.Sum(nil), err
}

// makeTemplate makes the template unless it exists. It gets its name when it is
// complete.
func makeTemplate(ctx context.Context, admin, name string, partitions []store.Partition) error {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", templateLock); err != nil {
		return err
	}
	var exists bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists)
	if err != nil || exists {
		return err
	}
	if err := dropOld(ctx, conn); err != nil {
		return err
	}
	unfinished := strings.Replace(name, templatePrefix, "layers_unfinished_", 1)
	for _, statement := range []string{"DROP DATABASE IF EXISTS " + unfinished + " WITH (FORCE)", "CREATE DATABASE " + unfinished} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	address, err := databaseURL(admin, unfinished)
	if err != nil {
		return err
	}
	if err := store.Migrate(ctx, address, partitions, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "ALTER DATABASE "+unfinished+" RENAME TO "+name)
	return err
}

// dropOld removes the templates of programs that are hardly run any more.
func dropOld(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `
		SELECT datname FROM pg_database
		WHERE starts_with(datname, $1)
			AND (pg_stat_file('base/' || oid || '/PG_VERSION', true)).modification < now() - interval '1 day'`, templatePrefix)
	if err != nil {
		return err
	}
	old, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range old {
		if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()); err != nil {
			return err
		}
	}
	return nil
}

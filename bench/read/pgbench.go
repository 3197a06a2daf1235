package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// pgbench runs the statements with PostgreSQL's own load generator and returns how
// many it did a second; 0 where it is not installed.
func pgbench(ctx context.Context, o options, statements []statement) (float64, error) {
	program, err := exec.LookPath("pgbench")
	if err != nil {
		return 0, nil
	}
	folder, err := os.MkdirTemp("", "bench-read-")
	if err != nil {
		return 0, fmt.Errorf("make a folder for pgbench: %w", err)
	}
	defer os.RemoveAll(folder)
	seconds := max(1, int(o.duration/time.Second))
	args := []string{"-n", "-M", "prepared", "-j", "1", "-c", strconv.Itoa(o.connections), "-T", strconv.Itoa(seconds)}
	for i, s := range statements[:min(len(statements), maxScripts)] {
		script, variables, err := pgbenchScript(s, i)
		if err != nil {
			return 0, err
		}
		path := filepath.Join(folder, strconv.Itoa(i)+".sql")
		if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
			return 0, fmt.Errorf("write a script for pgbench: %w", err)
		}
		args = append(append(args, "-f", path), variables...)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, err = pgEnvironment(o.database)
	if err != nil {
		return 0, err
	}
	output, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("pgbench: %w\n%s", err, output)
	}
	found := tps.FindSubmatch(output)
	if found == nil {
		return 0, fmt.Errorf("pgbench printed no tps:\n%s", output)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}

const maxScripts = 8 // different questions; each is prepared in every connection, which takes time

var (
	tps         = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)
	placeholder = regexp.MustCompile(`\$([0-9]+)`)
)

// pgbenchScript is a statement whose parameters are variables of pgbench's, named
// after the script, and the definitions of those.
func pgbenchScript(s statement, number int) (script string, variables []string, err error) {
	name := func(n string) string { return fmt.Sprintf("s%d_%s", number, n) }
	for i, arg := range s.args {
		text, ok := asText(arg)
		if !ok {
			return "", nil, fmt.Errorf("argument %d of %q is %v (%T): expected text or a number", i+1, s.sql, arg, arg)
		}
		variables = append(variables, "-D", name(strconv.Itoa(i+1))+"="+text)
	}
	sql := placeholder.ReplaceAllStringFunc(s.sql, func(p string) string { return ":" + name(p[1:]) })
	return strings.Join(strings.Fields(sql), " ") + ";\n", variables, nil
}

func asText(arg any) (string, bool) {
	switch v := arg.(type) {
	case string:
		return v, true
	case syntax.DID:
		return string(v), true
	case syntax.RecordKey:
		return string(v), true
	case int:
		return strconv.Itoa(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	}
	return "", false
}

// pgEnvironment is the database's URL in the variables of libpq, which keeps the
// password out of the list of processes.
func pgEnvironment(address string) ([]string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("parse the database URL: %w", err)
	}
	password, _ := u.User.Password()
	return append(os.Environ(), "PGHOST="+u.Hostname(), "PGPORT="+u.Port(), "PGUSER="+u.User.Username(),
		"PGPASSWORD="+password, "PGDATABASE="+strings.TrimPrefix(u.Path, "/")), nil
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

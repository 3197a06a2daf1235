// Command mutants asks whether the tests would notice. It makes one small change to
// the code at a time, each of which breaks something that a test should hold, and
// runs the tests of the packages concerned against the changed file, which it lays
// over the true one for the compiler alone. A change that no test notices survives.
//
//	go run ./test/mutants                       # what needs no store
//	go run ./test/stores -only postgres -- go run ./test/mutants -stores
//	go run ./test/mutants -only verify/tree     # those whose name begins so
//
// It ends with an error where a change survives that the catalog does not argue for
// (docs/mutation.md), or is noticed though it does, or where the code to change is
// no longer there.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

// mutant is one change: in file, old, which is there once, becomes new.
type mutant struct {
	name, file string
	old, new   string
	tests      string // packages whose tests should notice
	run        string // which of the tests; empty for all
	stores     bool   // the tests need stores
	argued     bool   // docs/mutation.md says why it may survive
}

type verdict string

const (
	killed   verdict = "killed"
	survived verdict = "SURVIVED"
	broken   verdict = "does not build"
	stale    verdict = "not in the code"
	slow     verdict = "killed (time)"
)

func main() {
	only := flag.String("only", "", "`prefix` of the mutants' names")
	stores := flag.Bool("stores", false, "also those whose tests need stores")
	limit := flag.Duration("timeout", 3*time.Minute, "of one run of tests")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *only, *stores, *limit)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, stores bool, limit time.Duration) error {
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	counts, wrong := map[verdict]int{}, 0
	for _, m := range catalog() {
		if !strings.HasPrefix(m.name, only) || m.stores && !stores {
			continue
		}
		v, detail, err := m.try(ctx, dir, limit)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		counts[v]++
		note := ""
		if fine := v == killed || v == slow; fine == m.argued {
			wrong++
			note = "  <-"
		}
		fmt.Printf("%-16s %s%s\n", v, m.name, note)
		if detail != "" {
			fmt.Println("    " + strings.ReplaceAll(strings.TrimSpace(detail), "\n", "\n    "))
		}
	}
	fmt.Println(counts)
	if wrong > 0 {
		return fmt.Errorf("%d mutants are not as the catalog says", wrong)
	}
	return nil
}

// try runs the tests against the mutant. detail is what a builder has to say.
func (m mutant) try(ctx context.Context, dir string, limit time.Duration) (v verdict, detail string, err error) {
	source, err := os.ReadFile(m.file)
	if err != nil {
		return "", "", err
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		return stale, fmt.Sprintf("%d times: %s", n, m.old), nil
	}
	overlay, err := m.overlay(dir, strings.Replace(string(source), m.old, m.new, 1))
	if err != nil {
		return "", "", err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	args := []string{"test", "-overlay=" + overlay, "-vet=off", "-ldflags=-s -w", "-count=1", "-failfast"}
	if m.run != "" {
		args = append(args, "-run", m.run)
	}
	out, err := command(ctx, "go", append(args, strings.Fields(m.tests)...)...)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return slow, "", nil
	case ctx.Err() != nil:
		return "", "", ctx.Err()
	case err == nil:
		return survived, "", nil
	case strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]"):
		return broken, out, nil
	}
	return killed, "", nil
}

// overlay writes the changed file, and what tells the compiler to take it.
func (m mutant) overlay(dir, source string) (string, error) {
	changed := filepath.Join(dir, "mutant.go")
	if err := os.WriteFile(changed, []byte(source), 0o600); err != nil {
		return "", err
	}
	file, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	content, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, content, 0o600)
}

func command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

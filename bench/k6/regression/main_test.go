package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// printed is what bench/k6 prints: see its header and print.
func printed(rows ...string) string {
	head := fmt.Sprintf("%-14s %8s %9s %9s %9s %9s %8s %7s   %s\n", "", "a second", "median", "p95", "p99", "max", "refused", "wrong", "CPU for an answer")
	return head + strings.Join(rows, "") + "peak memory of the API: 120 MiB, keeping answers 130 MiB\n"
}

func row(name string, p95, refused, wrong float64) string {
	return fmt.Sprintf("%-14s %8.0f %6.1f ms %6.1f ms %6.1f ms %6.0f ms %8.0f %7.0f   %s\n", name, 812.0, p95/2, p95, p95*2, p95*9, refused, wrong, "API 0.41 ms, neo4j 1.20 ms")
}

func TestComparison(t *testing.T) {
	t.Parallel()
	base := []string{
		printed(row("search", 100, 0, 0), row("graph", 50, 0, 0)),
		printed(row("search", 300, 0, 0), row("graph", 50, 0, 0)), // a run that was disturbed
		printed(row("search", 110, 0, 0), row("graph", 50, 0, 0)),
	}
	beside := "               p95 is 1.31 of that alone, beside 120 records a second taken in\n"
	for name, test := range map[string]struct {
		now  string
		want string
	}{
		"as good":      {printed(row("search", 131, 0, 0), row("graph", 59.9, 0, 0), beside), ""},
		"better":       {printed(row("search", 10, 0, 0), row("graph", 5, 0, 0)), ""},
		"more is more": {printed(row("search", 110, 0, 0), row("graph", 50, 0, 0), row("graph+ingest", 500, 0, 0)), ""},
		"worse":        {printed(row("search", 110, 0, 0), row("graph", 61, 0, 0)), "graph: the p95 is worse by 22 %"},
		"missing":      {printed(row("search", 110, 0, 0)), "graph was not measured"},
		"wrong":        {printed(row("search", 110, 0, 3), row("graph", 50, 0, 0)), "3 wrong"},
		"refused":      {printed(row("search", 110, 2, 0), row("graph", 50, 0, 0)), "2 answers were refused"},
		"empty":        {"k6: no such file\n", "no measurement"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for i, content := range base {
				require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("base-%d.txt", i)), []byte(content), 0o600))
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, "new-0.txt"), []byte(test.now), 0o600))
			var out strings.Builder
			err := run(&out, filepath.Join(dir, "base-*.txt"), filepath.Join(dir, "new-*.txt"), 0.2)
			if test.want == "" {
				require.NoError(t, err)
				require.Contains(t, out.String(), "| search | 110.0 ms |", "the median counts")
				return
			}
			require.ErrorContains(t, err, test.want)
		})
	}
	require.Error(t, run(&strings.Builder{}, filepath.Join(t.TempDir(), "*"), "x", 0.2))
}

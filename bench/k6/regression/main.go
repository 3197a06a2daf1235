// Command regression compares what bench/k6 printed for two versions of the program, and
// fails if a 95th percentile has become worse by more than a fifth:
//
//	go run ./bench/k6/regression -base 'out/base-*.txt' -new 'out/new-*.txt'
//
// Each version is measured several times, in turn, on one machine, since machines differ by
// more than that. The median of a version's runs counts.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	base := flag.String("base", "", "`files` with what was printed for the version before, as a pattern")
	next := flag.String("new", "", "`files` with what was printed for the new version, as a pattern")
	most := flag.Float64("most", 0.2, "by how much a 95th percentile may be worse")
	flag.Parse()
	if err := run(os.Stdout, *base, *next, *most); err != nil {
		fmt.Fprintln(os.Stderr, "regression:", err)
		os.Exit(1)
	}
}

// run prints a table, and fails where a measurement is worse or missing.
func run(out io.Writer, base, next string, most float64) error {
	before, err := read(base)
	if err != nil {
		return err
	}
	after, err := read(next)
	if err != nil {
		return err
	}
	var errs []error
	fmt.Fprintf(out, "| measurement | p95 before | p95 now | change |\n|---|--:|--:|--:|\n")
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if len(after[name]) == 0 {
			errs = append(errs, fmt.Errorf("%s was not measured for the new version", name))
			continue
		}
		was, is := median(before[name]), median(after[name])
		change := is/was - 1
		fmt.Fprintf(out, "| %s | %.1f ms | %.1f ms | %+.0f %% |\n", name, was, is, change*100)
		if change > most {
			errs = append(errs, fmt.Errorf("%s: the p95 is worse by %.0f %%", name, change*100))
		}
	}
	return errors.Join(errs...)
}

// read gathers the 95th percentiles, in milliseconds, of each measurement in some files.
func read(pattern string) (map[string][]float64, error) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no file is called %q: %w", pattern, errors.Join(err, os.ErrNotExist))
	}
	out := map[string][]float64{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		found, err := percentiles(string(content))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for name, p95 := range found {
			out[name] = append(out[name], p95)
		}
	}
	return out, nil
}

// percentiles finds the rows of the table: a name, a rate, and then times in milliseconds,
// of which the second is the 95th percentile. A row with answers that were wrong or
// refused is no measurement.
func percentiles(printed string) (map[string]float64, error) {
	out := map[string]float64{}
	for line := range strings.Lines(printed) {
		var name string
		var rate, half, p95, p99, most, refused, wrong float64
		n, _ := fmt.Sscanf(line, "%s %f %f ms %f ms %f ms %f ms %f %f", &name, &rate, &half, &p95, &p99, &most, &refused, &wrong)
		switch {
		case n < 8:
			continue
		case wrong > 0 || refused > 0:
			return nil, fmt.Errorf("%s: %.0f answers were refused and %.0f wrong", name, refused, wrong)
		case p95 <= 0:
			return nil, fmt.Errorf("%s: a p95 of %v", name, p95)
		}
		out[name] = p95
	}
	if len(out) == 0 {
		return nil, errors.New("there is no measurement in it")
	}
	return out, nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// report is everything that was measured.
type report struct {
	At      time.Time `json:"at"`
	Machine machine   `json:"machine"`
	Runs    int       `json:"runs"`
	Streams []stream  `json:"streams"`
	Limits  *limits   `json:"limits,omitempty"`
}

type stream struct {
	Name    string   `json:"name"`
	Facts   facts    `json:"facts"`
	Results []result `json:"results"`
}

func (r report) save(file string) error {
	raw, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(raw, '\n'), 0o644)
}

func (r report) print(out io.Writer) {
	fmt.Fprintf(out, "%s, %d CPUs (%s), %.0f GiB, %s, %s\n", r.At.Format(time.RFC3339), r.Machine.CPUs, r.Machine.CPU, r.Machine.Memory, r.Machine.Kernel, r.Machine.Go)
	if r.Runs > 1 {
		fmt.Fprintf(out, "median of %d runs (least, or most for time and memory)\n", r.Runs)
	}
	for _, s := range r.Streams {
		fmt.Fprintf(out, "\n%s: %d commits with %d changes of records, %.1f MB\n", s.Name, s.Facts.Commits, s.Facts.Changes, float64(s.Facts.Bytes)/1e6)
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprint(table, "\tcommits/s\trecords/s\tseconds\tindexer µs\tstores µs\tothers cores\tpeak MiB\t\n")
		for _, mode := range []string{first, alone, apart, together} {
			s.printMode(table, mode)
		}
		_ = table.Flush()
	}
	if r.Limits != nil {
		r.printLimits(out)
	}
}

// printMode prints the rows of one mode: the line, and then each projection.
func (s stream) printMode(out io.Writer, mode string) {
	results := slices.DeleteFunc(slices.Clone(s.Results), func(r result) bool { return r.Mode != mode })
	if len(results) == 0 {
		return
	}
	column := func(of func(result) float64) []float64 {
		values := make([]float64, len(results))
		for i, r := range results {
			values[i] = of(r)
		}
		slices.Sort(values)
		return values
	}
	rate := func(seconds func(result) float64, things int) string {
		rates := column(func(r result) float64 { return float64(things) / seconds(r) })
		return spread(rates, rates[0], "%.0f")
	}
	most := func(values []float64, format string) string { return spread(values, values[len(values)-1], format) }
	line := "PostgreSQL, line alone"
	switch mode {
	case first:
		line = "PostgreSQL, first runs"
	case together:
		line = "PostgreSQL, workers at work"
	}
	each := func(seconds func(spent) float64, of func(result) spent) string {
		return most(column(func(r result) float64 { return seconds(of(r)) * 1e6 / float64(s.Facts.Changes) }), "%.0f")
	}
	costs := func(of func(result) spent) {
		fmt.Fprintf(out, "%s\t%s\t%s\t", each(func(s spent) float64 { return s.Indexer }, of), each(spent.ofStores, of),
			most(column(func(r result) float64 { return of(r).Others / of(r).Seconds }), "%.1f"))
	}
	toPostgres := func(r result) float64 { return r.ToPostgres }
	fmt.Fprintf(out, "%s\t%s\t%s\t%s\t", line, rate(toPostgres, s.Facts.Commits), rate(toPostgres, s.Facts.Changes), most(column(toPostgres), "%.1f"))
	costs(func(r result) spent { return r.Line })
	fmt.Fprintf(out, "%s\t\n", most(column(func(r result) float64 { return r.PeakMiB }), "%.0f"))
	if mode == first || mode == alone {
		return
	}
	for i, target := range targets {
		name := map[string]string{"tables": "read tables", "search": "Elasticsearch", "graph": "Neo4j"}[target]
		if mode == apart {
			name += ", afterwards"
		}
		projected := func(r result) float64 { return r.Projected[target] }
		fmt.Fprintf(out, "%s\t\t%s\t%s\t", name, rate(projected, s.Facts.Changes), most(column(projected), "%.1f"))
		if i < len(targets)-1 {
			fmt.Fprint(out, "\t\t\t\t\n")
			continue
		}
		costs(func(r result) spent { return r.Catchup })
		if mode == apart {
			fmt.Fprint(out, most(column(func(r result) float64 { return r.WorkerMiB }), "%.0f"))
		}
		fmt.Fprint(out, "\t\n")
	}
}

// spread is the median of sorted values and, of several, the worst.
func spread(sorted []float64, worst float64, format string) string {
	text := fmt.Sprintf(format, sorted[len(sorted)/2])
	if len(sorted) > 1 {
		text += fmt.Sprintf(" ("+format+")", worst)
	}
	return text
}

func (s spent) ofStores() (sum float64) {
	for _, seconds := range s.Stores {
		sum += seconds
	}
	return sum
}

// median is that of a stream's results while workers did not run, or 0.
func (r report) median(name string, rate func(facts, result) float64) float64 {
	var rates []float64
	for _, s := range r.Streams {
		for _, result := range s.Results {
			if s.Name == name && result.Mode == apart {
				rates = append(rates, rate(s.Facts, result))
			}
		}
	}
	if len(rates) == 0 {
		return 0
	}
	slices.Sort(rates)
	return rates[len(rates)/2]
}

// printLimits prints what each part could do with nothing around it, and how much
// of that is reached.
func (r report) printLimits(out io.Writer) {
	records := func(f facts, res result) float64 { return float64(f.Changes) / res.ToPostgres }
	projected := func(target string) func(facts, result) float64 {
		return func(f facts, res result) float64 { return float64(f.Changes) / res.Projected[target] }
	}
	fmt.Fprint(out, "\nbare limits, and how much of them is reached\n")
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(table, "\ta second\treached by\trecords/s\tratio\t\n")
	for _, row := range []struct {
		name    string
		limit   float64
		by      string
		reached float64
	}{
		{"K-256 verifications, one core", r.Limits.Signatures, "single, line alone", r.median("single", records)},
		{"COPY of 1,000 equal rows a transaction", r.Limits.Copies, "hundred, line alone", r.median("hundred", records)},
		{"Elasticsearch bulk, same documents", r.Limits.Documents, "single, afterwards", r.median("single", projected("search"))},
		{"Neo4j UNWIND, same nodes and edges", r.Limits.Subgraphs, "single, afterwards", r.median("single", projected("graph"))},
	} {
		if row.reached == 0 || row.limit == 0 {
			fmt.Fprintf(table, "%s\t%.0f\t\t\t\t\n", row.name, row.limit)
			continue
		}
		fmt.Fprintf(table, "%s\t%.0f\t%s\t%.0f\t%.2f\t\n", row.name, row.limit, row.by, row.reached, row.reached/row.limit)
	}
	_ = table.Flush()
}

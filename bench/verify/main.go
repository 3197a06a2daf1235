// Command verify measures how many commits a core verifies in a second, next to the
// two things that no verification can do without: one check of a K-256 signature,
// and one inversion of the tree, by the protocol's own package, of the same commits.
//
//	go run ./bench/verify
//
// It makes the commits itself. All is counted in CPU time of one core, its share of
// garbage collection included, in turns, so that what else the machine does meets
// all alike.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"syscall"
	"time"
)

type options struct {
	commits, records, rounds int
	profile                  string
}

func main() {
	var o options
	flag.IntVar(&o.commits, "commits", 1500, "of each kind")
	flag.IntVar(&o.records, "records", 2000, "in the repository before them")
	flag.IntVar(&o.rounds, "rounds", 5, "measurements; the median counts")
	flag.StringVar(&o.profile, "cpuprofile", "", "`file` for a CPU profile of the verification alone")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "bench/verify:", err)
		os.Exit(1)
	}
}

// kind is a stream of commits of one size.
type kind struct {
	name string
	ops  int // of each commit
}

var kinds = []kind{{"one record", 1}, {"ten records", 10}, {"a hundred", 100}}

func run(ctx context.Context, o options) error {
	fmt.Printf("commits a second and core, median of %d rounds; %d records before\n\n%-12s %10s %10s %12s %10s %10s %8s\n",
		o.rounds, o.records, "", "signature", "inversion", "both", "verify", "decode+", "ratio")
	for _, k := range kinds {
		n := max(o.commits/k.ops, 50)
		s, err := makeStream(ctx, k, n, o.records)
		if err != nil {
			return fmt.Errorf("making %d commits of %s: %w", n, k.name, err)
		}
		if err := s.measure(ctx, o, k); err != nil {
			return fmt.Errorf("measuring commits of %s: %w", k.name, err)
		}
	}
	fmt.Println("\nratio: CPU time of decoding a frame and verifying its commit, to that of both bare costs")
	return nil
}

// measure runs each job in turn and prints the row of the medians.
func (s *stream) measure(ctx context.Context, o options, k kind) error {
	jobs := []func(context.Context) error{s.signatures, s.inversions, s.verify, s.decodeAndVerify}
	took := make([][]time.Duration, len(jobs))
	for range o.rounds {
		for i, job := range jobs {
			stop, err := startProfile(o.profile, i == len(jobs)-1)
			if err != nil {
				return err
			}
			d, err := cpuTime(ctx, job)
			stop()
			if err != nil {
				return err
			}
			took[i] = append(took[i], d/time.Duration(len(s.frames)))
		}
	}
	var each [4]time.Duration
	for i := range took {
		slices.Sort(took[i])
		each[i] = took[i][len(took[i])/2]
	}
	bare := each[0] + each[1]
	rate := func(d time.Duration) float64 { return float64(time.Second) / float64(d) }
	fmt.Printf("%-12s %10.0f %10.0f %12.0f %10.0f %10.0f %8.2f\n",
		k.name, rate(each[0]), rate(each[1]), rate(bare), rate(each[2]), rate(each[3]), float64(each[3])/float64(bare))
	return nil
}

// startProfile writes a CPU profile where that is wanted; the last round's is what stays.
func startProfile(path string, wanted bool) (stop func(), err error) {
	if path == "" || !wanted {
		return func() {}, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("creating the profile: %w", err)
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = file.Close()
	}, nil
}

// cpuTime is the CPU time that the process takes for a job.
func cpuTime(ctx context.Context, job func(context.Context) error) (time.Duration, error) {
	runtime.GC()
	before, err := usage()
	if err != nil {
		return 0, err
	}
	if err := job(ctx); err != nil {
		return 0, err
	}
	after, err := usage()
	return after - before, err
}

func usage() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("reading the CPU time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

package main

import (
	"fmt"
	"runtime"
	"strings"
	"time"
)

// Figures are what a drill has measured.
type Figures struct {
	Records      int           // that the network has in the end
	DatabaseSize int64         // bytes
	BackupSize   int64         // bytes of the base backup
	ArchiveSize  int64         // bytes of archived segments
	Lost         time.Duration // of what was confirmed before the database was killed
	LostEvents   int64         // that had been applied, and were not archived
	Ahead        int           // records of which the projections knew more than the restored database
	Mended       int           // differences that were left after the stream had been read again
	steps        []step
}

type step struct {
	name string
	took time.Duration
}

func (f *Figures) add(name string, began time.Time) {
	f.steps = append(f.steps, step{name, time.Since(began)})
}

// took is how long a step took; 0 if it was not done.
func (f *Figures) took(name string) time.Duration {
	for _, s := range f.steps {
		if s.name == name {
			return s.took
		}
	}
	return 0
}

// String is a table.
func (f *Figures) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d records; database %.1f MB, base backup %.1f MB, archived log %.1f MB; %d processors\n\n",
		f.Records, float64(f.DatabaseSize)/1e6, float64(f.BackupSize)/1e6, float64(f.ArchiveSize)/1e6, runtime.NumCPU())
	fmt.Fprintf(&out, "| what | took |\n|---|---|\n")
	for _, s := range f.steps {
		fmt.Fprintf(&out, "| %s | %.1f s |\n", s.name, s.took.Seconds())
	}
	fmt.Fprintf(&out, "\nlost when the database was killed: %.1f s of commits, %d events (fetched again from the network)\n", f.Lost.Seconds(), f.LostEvents)
	fmt.Fprintf(&out, "projections were ahead of the restored database in %d records; %d differences were left to mend once the stream had been read again\n", f.Ahead, f.Mended)
	return out.String()
}

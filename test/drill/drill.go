package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/layers-pub/layers-appview/bench/program"
	"github.com/layers-pub/layers-appview/bench/scratch"
	"github.com/layers-pub/layers-appview/internal/daemon"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/test/stores/fullpostgres"
)

// Config says how large a drill is.
type Config struct {
	Records   int
	PerCommit int
	Rate      float64 // records a second
	Program   string
	Scripts   string // directory; found from the work tree without it
	Out       io.Writer
}

// drill is one run.
type drill struct {
	*site
	cfg       Config
	figures   *Figures
	generator *simulate.Generator
	snapshot  string    // where Elasticsearch puts snapshots; empty if it cannot
	point     time.Time // to which the database is restored
	through   int64     // the cursor at that point

	lastConfirmed time.Time // commit before the database was killed
	resumedAt     time.Time // when the restore began
}

// Run does a whole drill on the stores that the environment names.
func Run(ctx context.Context, cfg Config) (*Figures, error) {
	d := &drill{site: &site{}, cfg: cfg, figures: &Figures{}}
	err := d.prepare(ctx)
	for _, part := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"fill the stores from the network", d.fill},
		{"back up", d.backUp},
		{"write on, to a point in time and beyond it", d.writeOn},
		{"lose the database", d.lose},
		{"restore it to the end of the archive, beside", d.restoreEnd},
		{"restore it to the point in time", d.restorePoint},
		{"read the stream again", d.resume},
		{"lose the projections, restore Elasticsearch's snapshot", d.restoreSnapshot},
		{"lose the projections, build them from PostgreSQL", d.reindex},
		{"lose everything, fetch it from the network", d.refetch},
	} {
		if err != nil {
			break
		}
		d.say("%s", part.name)
		if err = part.do(ctx); err != nil {
			err = fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return d.figures, errors.Join(err, d.close())
}

func (d *drill) say(format string, args ...any) {
	fmt.Fprintf(d.cfg.Out, "drill: "+format+"\n", args...)
}

func (d *drill) prepare(ctx context.Context) (err error) {
	if d.cfg.Scripts == "" {
		d.cfg.Scripts = filepath.Join("k8s", "disaster-recovery", "scripts")
	}
	servers, err := scratch.Find(scratch.PostgreSQL, scratch.Redis, scratch.Elasticsearch, scratch.Neo4j)
	if err != nil {
		return err
	}
	if d.stores, err = scratch.Open(ctx, servers); err != nil {
		return err
	}
	if d.account, err = daemon.Unprivileged(); err != nil {
		return err
	}
	if d.dir, err = d.account.TempDir("layers-drill-"); err != nil {
		return err
	}
	if err := copyScripts(d.cfg.Scripts, filepath.Join(d.dir, "scripts")); err != nil {
		return err
	}
	if err := d.setStore(); err != nil {
		return err
	}
	if d.build, err = fullpostgres.Install(ctx); err != nil {
		return err
	}
	path, _, err := program.Given(ctx, d.cfg.Program)
	if err != nil {
		return err
	}
	d.program = path
	if d.db, err = newDatabase(filepath.Join(d.dir, "database"), d.build, filepath.Join(d.dir, "scripts"), true); err != nil {
		return err
	}
	if err := d.db.start(ctx); err != nil {
		return err
	}
	return d.openNetwork()
}

// setStore makes the directory that backups go to, and tells everyone of it, the server
// too, which runs the scripts.
func (d *drill) setStore() error {
	store := filepath.Join(d.dir, "store")
	if err := os.Mkdir(store, 0o700); err != nil {
		return err
	}
	return errors.Join(d.account.Own(store), os.Setenv("BACKUP_STORE", store))
}

func (d *drill) openNetwork() (err error) {
	if d.world, err = simulate.NewWorld(simulate.Config{Seed: 6}); err != nil {
		return err
	}
	d.server = simulate.NewServer(d.world, simulate.ServerConfig{})
	if err := d.server.Start("127.0.0.1:0"); err != nil {
		return err
	}
	d.generator, err = simulate.NewGenerator(d.world, simulate.Script{
		Authors: 8, Records: d.cfg.Records, PerCommit: d.cfg.PerCommit, Edits: 5, Live: true,
	})
	return err
}

// play writes so many records, or edits of them.
func (d *drill) play(records int) error {
	for n := 0; n < records; {
		commit, err := d.generator.Step()
		if err != nil {
			return err
		}
		n += len(commit.Ops)
	}
	return nil
}

func (d *drill) fill(ctx context.Context) error {
	if err := d.play(d.cfg.Records); err != nil {
		return err
	}
	began := time.Now()
	if err := d.startIndexer(); err != nil {
		return err
	}
	if err := d.caughtUp(ctx); err != nil {
		return err
	}
	d.figures.add("fill the stores through the indexer", began)
	if err := d.agreed(ctx); err != nil {
		return err
	}
	var err error
	d.figures.DatabaseSize, err = ask[int64](ctx, d.db.server.URL(), "SELECT pg_database_size(current_database())")
	return err
}

func (d *drill) backUp(ctx context.Context) (err error) {
	began := time.Now()
	if err := d.script(ctx, "base-backup.sh", nil); err != nil {
		return err
	}
	d.figures.add("base backup of PostgreSQL", began)
	if d.figures.BackupSize, err = size(filepath.Join(d.dir, "store", "base")); err != nil {
		return err
	}
	if d.snapshot, err = d.snapshots(ctx); err != nil {
		return err
	}
	if d.snapshot == "" {
		d.say("this Elasticsearch has no path.repo: no snapshot is taken, and none restored")
		return nil
	}
	if err := d.script(ctx, "configure-snapshots.sh", d.snapshotEnvironment(), "--repository-only"); err != nil {
		return err
	}
	began = time.Now()
	if err := d.script(ctx, "snapshot-elasticsearch.sh", d.snapshotEnvironment(), "drill"); err != nil {
		return err
	}
	d.figures.add("snapshot of Elasticsearch", began)
	return nil
}

func (d *drill) snapshotEnvironment() []string {
	return []string{"SNAPSHOT_LOCATION=" + d.snapshot, "SNAPSHOT_REPOSITORY=" + d.stores.Name}
}

// writeOn has changes before the point in time, and others after it: the projections
// get all of them.
func (d *drill) writeOn(ctx context.Context) (err error) {
	if err := d.play(d.cfg.Records / 20); err != nil {
		return err
	}
	if err := d.caughtUp(ctx); err != nil {
		return err
	}
	if d.point, err = ask[time.Time](ctx, d.db.server.URL(), "SELECT clock_timestamp()"); err != nil {
		return err
	}
	d.through = d.world.LastSeq()
	if err := d.play(d.cfg.Records / 20); err != nil {
		return err
	}
	if err := d.world.SetStatus(d.world.Accounts()[3], simulate.Deactivated); err != nil {
		return err
	}
	if err := d.world.SetStatus(d.world.Accounts()[4], simulate.Deleted); err != nil {
		return err
	}
	if err := d.caughtUp(ctx); err != nil {
		return err
	}
	return d.agreed(ctx)
}

// lose kills the server while the network goes on writing, and removes what it had.
func (d *drill) lose(ctx context.Context) error {
	last, err := ask[string](ctx, d.db.server.URL(), "SELECT pg_walfile_name(pg_current_wal_lsn())")
	if err != nil {
		return err
	}
	writing, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- d.writeLive(writing) }()
	err = d.wait(ctx, "the log to be archived", func() error {
		archived, err := ask[bool](ctx, d.db.server.URL(), "SELECT coalesce(last_archived_wal, '') > '"+last+"' FROM pg_stat_archiver")
		if err == nil && !archived {
			err = errors.New("the segment after " + last + " is not archived")
		}
		return err
	})
	if err != nil {
		return err
	}
	time.Sleep(archiveTimeout / 2) // somewhere between two segments
	applied, err := ask[int64](ctx, d.db.server.URL(), "SELECT max(seq) FROM cursor")
	if err != nil {
		return err
	}
	confirmed, err := ask[time.Time](ctx, d.db.server.URL(), "SELECT max(updated_at) FROM cursor")
	if err != nil {
		return err
	}
	d.figures.LostEvents, d.lastConfirmed = applied, confirmed
	if err := d.db.lose(); err != nil {
		return err
	}
	stop()
	if err := <-ended; err != nil {
		return err
	}
	d.figures.ArchiveSize, err = size(filepath.Join(d.dir, "store", "wal"))
	return errors.Join(err, d.stopIndexer())
}

// step writes a commit, unless it is by an author whose account is gone.
func (d *drill) step() error {
	_, err := d.generator.Step()
	if errors.Is(err, simulate.ErrNotActive) || errors.Is(err, simulate.ErrNoAccount) {
		return nil
	}
	return err
}

// writeLive writes until ctx ends.
func (d *drill) writeLive(ctx context.Context) error {
	pause := time.Duration(float64(time.Second) * float64(d.cfg.PerCommit) / d.cfg.Rate)
	for ctx.Err() == nil {
		if err := d.step(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

func (d *drill) close() error {
	var errs []error
	if d.indexer != nil {
		errs = append(errs, d.stopIndexer())
	}
	if d.generator != nil {
		d.generator.Stop()
	}
	if d.server != nil {
		errs = append(errs, d.server.Stop())
	}
	if d.world != nil {
		errs = append(errs, d.world.Close())
	}
	if d.db != nil {
		errs = append(errs, d.db.stop())
	}
	if d.stores != nil {
		errs = append(errs, d.stores.Drop())
	}
	if d.program != "" && d.cfg.Program == "" {
		errs = append(errs, os.RemoveAll(filepath.Dir(d.program)))
	}
	if strings.Contains(d.dir, "layers-drill-") {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// restored puts a backup into a database's directory and starts it.
func (d *drill) restored(ctx context.Context, db *database, args ...string) error {
	if err := d.script(ctx, "restore-postgres.sh", nil, append([]string{db.data()}, args...)...); err != nil {
		return err
	}
	if err := d.account.OwnTree(db.data()); err != nil {
		return err
	}
	if err := db.start(ctx); err != nil {
		return err
	}
	return db.promoted(ctx)
}

// restoreEnd tells how much is lost with a database that was killed: what had been
// confirmed, and was not archived yet. It does not archive: its timeline is given up.
func (d *drill) restoreEnd(ctx context.Context) error {
	db, err := newDatabase(filepath.Join(d.dir, "beside"), d.build, "", false)
	if err != nil {
		return err
	}
	if err := os.Mkdir(db.dir, 0o711); err != nil { //nolint:gosec // the server's account enters it
		return err
	}
	password, err := os.ReadFile(filepath.Join(d.db.dir, "password"))
	if err == nil {
		err = os.WriteFile(filepath.Join(db.dir, "password"), password, 0o600)
	}
	if err != nil {
		return err
	}
	began := time.Now()
	if err := d.restored(ctx, db); err != nil {
		return errors.Join(err, db.stop())
	}
	d.figures.add("PostgreSQL restored to the end of the archive", began)
	have, cursor, err := shown(ctx, db.server.URL())
	if err != nil {
		return errors.Join(err, db.stop())
	}
	confirmed, err := ask[time.Time](ctx, db.server.URL(), "SELECT max(updated_at) FROM cursor")
	d.figures.Lost, d.figures.LostEvents = d.lastConfirmed.Sub(confirmed), d.figures.LostEvents-cursor
	return errors.Join(err, differ(have, written(d.world, cursor)), db.stop(), os.RemoveAll(db.dir))
}

// restorePoint goes back to the point in time: what was committed after it is not there.
func (d *drill) restorePoint(ctx context.Context) error {
	began := time.Now()
	if err := d.restored(ctx, d.db, d.point.UTC().Format("2006-01-02 15:04:05.999999+00")); err != nil {
		return err
	}
	d.figures.add("PostgreSQL restored to a point in time", began)
	if err := d.api(ctx); err != nil {
		return err
	}
	d.figures.add("... and the API answers from it", began)
	d.resumedAt = began
	have, cursor, err := shown(ctx, d.db.server.URL())
	if err != nil {
		return err
	}
	if cursor != d.through {
		return fmt.Errorf("the restored cursor is %d, should be %d", cursor, d.through)
	}
	if err := differ(have, written(d.world, d.through)); err != nil {
		return err
	}
	if err := differ(have, written(d.world, 0)); err == nil {
		return errors.New("what was written after the point in time is there")
	}
	_, d.figures.Ahead, err = d.verify(ctx, "--wait", "1s")
	if err == nil && d.figures.Ahead == 0 {
		err = errors.New("no projection is found to be ahead of the restored database: the drill proves nothing")
	}
	return err
}

// resume starts the indexer: it goes on at the restored cursor, and is given again what
// was lost.
func (d *drill) resume(ctx context.Context) error {
	if err := d.startIndexer(); err != nil {
		return err
	}
	if _, err := d.indexer.Await(ctx, "PostgreSQL was restored"); err != nil {
		return err
	}
	if err := d.caughtUp(ctx); err != nil {
		return err
	}
	d.figures.add("... and everything is as the network has it", d.resumedAt)
	var err error
	if d.figures.Mended, _, err = d.verify(ctx, "--repair"); err != nil {
		return err
	}
	if err := d.caughtUp(ctx); err != nil {
		return err
	}
	if err := d.agreed(ctx); err != nil {
		return err
	}
	d.figures.add("... and compared, mended and compared again", d.resumedAt)
	// Changes after the recovery reach the projections, too.
	if err := d.writeMore(ctx); err != nil {
		return err
	}
	d.figures.Records = len(written(d.world, 0))
	return nil
}

func (d *drill) writeMore(ctx context.Context) error {
	for range 20 {
		if err := d.step(); err != nil {
			return err
		}
	}
	if err := d.caughtUp(ctx); err != nil {
		return err
	}
	return d.agreed(ctx)
}

// restoreSnapshot brings back an index that is older than the database.
func (d *drill) restoreSnapshot(ctx context.Context) error {
	if d.snapshot == "" {
		return nil
	}
	began := time.Now()
	if err := d.script(ctx, "restore-elasticsearch.sh", d.snapshotEnvironment(), "drill"); err != nil {
		return err
	}
	d.figures.add("Elasticsearch restored from its snapshot", began)
	stale, _, err := d.verify(ctx, "--to", "search", "--repair")
	if err != nil {
		return err
	}
	if stale == 0 {
		return errors.New("the snapshot is not older than the database: the drill proves nothing")
	}
	if err := d.caughtUp(ctx); err != nil {
		return err
	}
	if err := d.agreed(ctx, "--to", "search"); err != nil {
		return err
	}
	d.figures.add(fmt.Sprintf("... and brought up to date by verify --repair (%d differences)", stale), began)
	return nil
}

func (d *drill) reindex(ctx context.Context) error {
	if err := d.emptyProjections(ctx); err != nil {
		return err
	}
	began := time.Now()
	output, code, err := d.layers(ctx, "reindex", "--to", "search", "--to", "graph")
	if err != nil || code != 0 {
		return fmt.Errorf("layers reindex ended with %d: %w\n%s", code, err, output)
	}
	d.figures.add("Elasticsearch and Neo4j built anew from PostgreSQL", began)
	return d.agreed(ctx)
}

// refetch begins with nothing but the network.
func (d *drill) refetch(ctx context.Context) error {
	if err := d.stopIndexer(); err != nil {
		return err
	}
	if err := d.db.lose(); err != nil {
		return err
	}
	if err := errors.Join(d.emptyProjections(ctx), d.emptyRedis(ctx)); err != nil {
		return err
	}
	var err error
	if d.db, err = newDatabase(filepath.Join(d.dir, "anew"), d.build, "", false); err != nil {
		return err
	}
	began := time.Now()
	if err := d.db.start(ctx); err != nil {
		return err
	}
	if err := d.startIndexer(); err != nil {
		return err
	}
	if err := d.caughtUp(ctx); err != nil {
		return err
	}
	d.figures.add("everything fetched anew from the network into empty stores", began)
	return d.agreed(ctx)
}

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/test/rig"
)

// TestStandby runs two indexers on one database. One writes and the other waits,
// until the first is cut off from the database without knowing it is replaced, and
// again when the one that writes is killed.
func TestStandby(t *testing.T) {
	s := newStream(t)
	d := deploy(t, s.upstream(), "LAYERS_BACKFILL=false") // which would show it the stream's future
	last := s.LastSeq()
	names := [2]string{"first", "second"}
	var ways [2]*rig.Proxy // to PostgreSQL
	var indexers [2]*rig.Process
	start := func(i int) {
		env := append(d.Env, "DATABASE_URL="+strings.Replace(d.variable("DATABASE_URL"), d.Proxies.Postgres.Addr(), ways[i].Addr(), 1))
		indexers[i] = rig.Launch(t, env, names[i], "indexer", "--no-workers")
	}
	for i := range ways {
		ways[i] = rig.NewProxy(t, d.Proxies.Postgres.Target)
	}
	start(0)
	s.open(last / 10)
	d.Reach(1, indexers[0])
	watch := d.watchWriters()
	start(1)
	waits(t, indexers[1])
	d.Reach(last/10, indexers[:]...)

	// The first loses the way to the database and must leave it to the second;
	// with the way back it must wait.
	first := d.writer()
	ways[0].Cut()
	s.open(last * 2 / 10)
	d.Reach(last*2/10, indexers[:]...)
	second := d.writer()
	require.NotEqual(t, first, second, "another session must be the writer's")
	ways[0].Restore()
	waits(t, indexers[0])
	d.equal(d.snapshot(), truthAt(s.World, d.Cursor()), "after the first takeover")

	// The second is killed at work, with far more to do than is done until the kill
	// comes, and the first takes over.
	s.open(last * 8 / 10)
	d.Reach(last*2/10+last/50, indexers[:]...)
	indexers[1].Kill()
	require.Less(t, d.Cursor(), last*8/10)
	s.open(last * 9 / 10)
	d.Reach(last*9/10, indexers[0])
	require.NotEqual(t, second, d.writer(), "another session must be the writer's")

	watch()
	d.equal(d.snapshot(), truthAt(s.World, last*9/10), "after the second takeover")
	indexers[0].Stop()
}

// variable is the value that the environment of the deployment gives.
func (d *deployment) variable(name string) (value string) {
	for _, setting := range d.Env {
		if v, ok := strings.CutPrefix(setting, name+"="); ok {
			value = v
		}
	}
	return value
}

// waits requires that an indexer has come to wait for the other's lock: since it was
// the writer itself, if it was, and since it found the way to PostgreSQL again.
func waits(t *testing.T, p *rig.Process) {
	t.Helper()
	rig.Eventually(t, p.Name+" to stand by", func() (bool, string) {
		log := p.Output()
		since := max(strings.LastIndex(log, "this process is the writer"), strings.LastIndex(log, "PostgreSQL does not answer, waiting for it"))
		return strings.LastIndex(log, "another process is the writer, waiting for its lock") > since, "it does not say so"
	}, p)
}

// writerLock is the key of the advisory lock that the one writer holds.
const writerLock = 0x6c61796572730002

// writer is the server process of the session that holds the writer's lock.
func (d *deployment) writer() int {
	d.t.Helper()
	holders, err := d.writers()
	require.NoError(d.t, err)
	require.Len(d.t, holders, 1, "one session must hold the writer's lock")
	return holders[0]
}

func (d *deployment) writers() ([]int, error) {
	rows, err := d.Database.Query(d.t.Context(), `
		SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database
		WHERE locktype = 'advisory' AND granted AND datname = current_database()
			AND classid::bigint << 32 | objid::bigint = $1`, int64(writerLock))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int])
}

// watchWriters looks all the time whether there are two writers or the cursor goes
// back. The function that it returns ends that and fails the test if so.
func (d *deployment) watchWriters() (end func()) {
	stop := make(chan struct{})
	var watching sync.WaitGroup
	var wrong []string
	looks, cursor := 0, int64(0)
	look := func() error {
		pids, err := d.writers()
		if err != nil {
			return err
		}
		var at int64
		if err := d.Database.QueryRow(d.t.Context(), "SELECT coalesce(max(seq), 0) FROM cursor").Scan(&at); err != nil {
			return err
		}
		if len(pids) > 1 {
			return fmt.Errorf("%d sessions hold the writer's lock", len(pids))
		}
		if at < cursor {
			return fmt.Errorf("the cursor went back from %d to %d", cursor, at)
		}
		cursor = at
		return nil
	}
	watching.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(rig.PollEvery):
			}
			looks++
			if err := look(); err != nil {
				wrong = append(wrong, err.Error())
			}
		}
	})
	finish := sync.OnceFunc(func() {
		close(stop)
		watching.Wait()
	})
	d.t.Cleanup(finish)
	return func() {
		d.t.Helper()
		finish()
		require.Empty(d.t, wrong)
		d.t.Logf("looked %d times for a second writer", looks)
	}
}

package e2e

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/test/rig"
)

// refusals is how often a store must have been asked for in vain before it comes back.
const refusals = 5

// TestOutages takes each store away in the middle of the stream, and all that Redis
// holds. The indexer is never restarted; when everything is there again, the
// projections catch up by themselves.
func TestOutages(t *testing.T) {
	s := newStream(t)
	d := deploy(t, s.upstream(), "LAYERS_BACKFILL=false") // which would show it the stream's future: then nothing is left to do in an outage
	last := s.LastSeq()
	part := last / 8
	s.open(part)
	ix := d.Indexer()
	d.Reach(part/2, ix)

	t.Logf("Redis lost %d tasks that no worker had taken", d.flush(ix))
	d.Reach(part, ix)

	for i, outage := range []struct {
		name    string
		store   *rig.Proxy
		targets []record.Target // that cannot go on
	}{
		{"Redis", d.Proxies.Redis, []record.Target{record.Search, record.Graph, record.Tables}},
		{"Elasticsearch", d.Proxies.Elasticsearch, []record.Target{record.Search}},
		{"Neo4j", d.Proxies.Neo4j, []record.Target{record.Graph}},
	} {
		before := outage.store.Refused.Load()
		outage.store.Cut()
		end := part * int64(i+2)
		s.open(end)
		d.Reach(end, ix) // PostgreSQL does not wait for it
		refused(t, outage.store, before+refusals, ix)
		waiting := map[record.Target]backlog{}
		for _, target := range outage.targets {
			waiting[target] = d.backlog(target)
			require.Positive(t, waiting[target].rows, "nothing waits for %s although %s is cut off", target, outage.name)
		}
		outage.store.Restore()
		for target, was := range waiting {
			rig.Eventually(t, fmt.Sprintf("the projection %s to go on with %s back", target, outage.name), func() (bool, string) {
				left := d.left(target, was)
				return left < was.rows, fmt.Sprintf("%d of %d rows are left", left, was.rows)
			}, ix)
		}
		t.Logf("%s: %d connections severed, %d refused", outage.name, outage.store.Severed.Load(), outage.store.Refused.Load()-before)
	}

	at := d.Cursor()
	database := d.Proxies.Postgres
	database.Cut()
	s.open(part * 6)
	refused(t, database, refusals, ix)
	require.Equal(t, at, d.Cursor(), "nothing can have been written to a database that is cut off")
	database.Restore()
	d.Reach(part*6, ix)
	t.Logf("PostgreSQL: %d connections severed, %d refused", database.Severed.Load(), database.Refused.Load())

	s.open(last)
	d.Reach(last, ix)
	d.Settle(ix) // what has piled up may take longer than a comparison waits
	d.verified()
	d.projected(truthOf(s.World))
	ix.Stop()
}

// flush empties Redis at a moment when tasks wait in it that no worker has taken,
// and returns how many.
func (d *deployment) flush(alive *rig.Process) (lost int) {
	d.t.Helper()
	script := redis.NewScript(`
		local waiting = 0
		for _, queue in ipairs(redis.call('KEYS', 'asynq:*:pending')) do
			waiting = waiting + redis.call('LLEN', queue)
		end
		if waiting > 0 then redis.call('FLUSHDB') end
		return waiting`)
	rig.Eventually(d.t, "tasks to wait in Redis", func() (bool, string) {
		var err error
		lost, err = script.Run(d.t.Context(), d.Redis, nil).Int()
		require.NoError(d.t, err)
		return lost > 0, "there are none"
	}, alive)
	return lost
}

func refused(t *testing.T, store *rig.Proxy, times int64, alive *rig.Process) {
	t.Helper()
	rig.Eventually(t, "connections to be refused", func() (bool, string) {
		n := store.Refused.Load()
		return n >= times, fmt.Sprintf("%d, should be %d", n, times)
	}, alive)
}

// backlog is what waits for a projection at some moment.
type backlog struct {
	newest int64 // id in the outbox
	rows   int64
}

func (d *deployment) backlog(target record.Target) (b backlog) {
	d.t.Helper()
	err := d.Database.QueryRow(d.t.Context(), "SELECT coalesce(max(id), 0), count(*) FROM outbox WHERE target = $1", target).Scan(&b.newest, &b.rows)
	require.NoError(d.t, err)
	return b
}

// left counts what still waits of a backlog.
func (d *deployment) left(target record.Target, of backlog) (rows int64) {
	d.t.Helper()
	err := d.Database.QueryRow(d.t.Context(), "SELECT count(*) FROM outbox WHERE target = $1 AND id <= $2", target, of.newest).Scan(&rows)
	require.NoError(d.t, err)
	return rows
}

package e2e

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
)

// refusals is how often a store must have been asked for in vain before it comes back.
const refusals = 5

// TestOutages takes each store away in the middle of the stream, and all that Redis
// holds. The indexer is never restarted; when everything is there again, the
// projections catch up by themselves.
func TestOutages(t *testing.T) {
	s := newStream(t)
	d := deploy(t, s.upstream())
	last := s.LastSeq()
	part := last / 8
	s.open(part)
	ix := d.indexer()
	d.reach(part/2, ix)

	t.Logf("Redis lost %d tasks that no worker had taken", d.flush(ix))
	d.reach(part, ix)

	for i, outage := range []struct {
		name    string
		store   *proxy
		targets []record.Target // that cannot go on
	}{
		{"Redis", d.proxies.redis, []record.Target{record.Search, record.Graph, record.Tables}},
		{"Elasticsearch", d.proxies.elasticsearch, []record.Target{record.Search}},
		{"Neo4j", d.proxies.neo4j, []record.Target{record.Graph}},
	} {
		before := outage.store.refused.Load()
		outage.store.cut()
		end := part * int64(i+2)
		s.open(end)
		d.reach(end, ix) // PostgreSQL does not wait for it
		refused(t, outage.store, before+refusals, ix)
		waiting := map[record.Target]backlog{}
		for _, target := range outage.targets {
			waiting[target] = d.backlog(target)
			require.Positive(t, waiting[target].rows, "nothing waits for %s although %s is cut off", target, outage.name)
		}
		outage.store.restore()
		for target, was := range waiting {
			eventually(t, fmt.Sprintf("the projection %s to go on with %s back", target, outage.name), func() (bool, string) {
				left := d.left(target, was)
				return left < was.rows, fmt.Sprintf("%d of %d rows are left", left, was.rows)
			}, ix)
		}
		t.Logf("%s: %d connections severed, %d refused", outage.name, outage.store.severed.Load(), outage.store.refused.Load()-before)
	}

	at := d.cursor()
	database := d.proxies.postgres
	database.cut()
	s.open(part * 6)
	refused(t, database, refusals, ix)
	require.Equal(t, at, d.cursor(), "nothing can have been written to a database that is cut off")
	database.restore()
	d.reach(part*6, ix)
	t.Logf("PostgreSQL: %d connections severed, %d refused", database.severed.Load(), database.refused.Load())

	s.open(last)
	d.reach(last, ix)
	d.verified() // waits until the projections have caught up
	d.projected(truthOf(s.World))
	ix.stop()
}

// flush empties Redis at a moment when tasks wait in it that no worker has taken,
// and returns how many.
func (d *deployment) flush(alive *process) (lost int) {
	d.t.Helper()
	script := redis.NewScript(`
		local waiting = 0
		for _, queue in ipairs(redis.call('KEYS', 'asynq:*:pending')) do
			waiting = waiting + redis.call('LLEN', queue)
		end
		if waiting > 0 then redis.call('FLUSHDB') end
		return waiting`)
	eventually(d.t, "tasks to wait in Redis", func() (bool, string) {
		var err error
		lost, err = script.Run(d.t.Context(), d.redis, nil).Int()
		require.NoError(d.t, err)
		return lost > 0, "there are none"
	}, alive)
	return lost
}

func refused(t *testing.T, store *proxy, times int64, alive *process) {
	t.Helper()
	eventually(t, "connections to be refused", func() (bool, string) {
		n := store.refused.Load()
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
	err := d.database.QueryRow(d.t.Context(), "SELECT coalesce(max(id), 0), count(*) FROM outbox WHERE target = $1", target).Scan(&b.newest, &b.rows)
	require.NoError(d.t, err)
	return b
}

// left counts what still waits of a backlog.
func (d *deployment) left(target record.Target, of backlog) (rows int64) {
	d.t.Helper()
	err := d.database.QueryRow(d.t.Context(), "SELECT count(*) FROM outbox WHERE target = $1 AND id <= $2", target, of.newest).Scan(&rows)
	require.NoError(d.t, err)
	return rows
}

package discovery

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/test/rig"
)

// under is what is asked, and written to, while servers are stopped.
type under struct {
	*rig.Deployment
	t      *testing.T
	load   *load
	diary  *diary
	ix     *rig.Process
	strict string // the process that has no other way, and keeps no answers
}

// outage is one server's, for a while.
type outage struct {
	server   *rig.Server
	end      func() // of its process
	how      string
	targets  []record.Target             // that cannot go on
	starting func(*rig.Server)           // sees it start again; may be nil
	back     func(outage) (bool, string) // whether it is of use again
	waiting  map[record.Target]int64     // rows, when it was started again
	degrades bool
}

// TestFaultsUnderLoad kills one of two API processes, and ends the servers of Redis,
// Elasticsearch and Neo4j in turn and starts them again, while both are asked all the
// time: one that may fall back on PostgreSQL and keeps answers in Redis, and one that
// does neither. The index is written meanwhile, and loses nothing.
func TestFaultsUnderLoad(t *testing.T) {
	w := newWorld(t)
	servers := rig.StartServers(t)
	stores := servers.Open(t)
	settings := append(stores.Direct(), "LAYERS_SEARCH_FALLBACK=true", "LAYERS_GRAPH_FALLBACK=true",
		fmt.Sprintf("LAYERS_REQUEST_TIMEOUT=%s", requestTime))
	d := rig.Deploy(t, stores, w.upstream(), settings...)
	ix := d.Indexer()
	w.indexed(d, ix)
	strict := []string{"LAYERS_SEARCH_FALLBACK=false", "LAYERS_GRAPH_FALLBACK=false", "LAYERS_CACHE=false"}
	address := rig.FreeAddress(t)
	one, process := d.Replica(address, strict...)
	two, other := d.Replica(rig.FreeAddress(t))

	all := questions(w.truth())
	for i := range all {
		if all[i].by == elasticsearch { // walks of many pages, which a server can end in the middle of
			all[i].params.Set("limit", "10")
		}
	}
	l := &load{questions: all, strict: one}
	rig.Eventually(t, "all answers to be right", func() (bool, string) { return same(newClient(two), l.questions) }, ix)
	l.start(t, []string{one, two}, 6)
	u := &under{Deployment: d, t: t, load: l, diary: w.keepDiary(t), ix: ix, strict: one}
	l.more(t, "right answers", &l.answers, 200)

	l.gone(one, true)
	process.Kill()
	l.more(t, "connections refused by who was killed", &l.lost, 5)
	l.more(t, "right answers of the other", &l.answers, 50)
	_, again := d.Replica(address, strict...)
	l.gone(one, false)

	for _, o := range u.outages(servers) {
		u.endure(o)
	}
	rig.Eventually(t, "everything to be answered by whom it should be", func() (bool, string) {
		ok, what := same(newClient(one), all)
		if ok {
			ok, what = same(newClient(two), all)
		}
		return ok, what
	}, ix)
	l.end()
	require.Empty(t, l.wrong)
	sum := l.figures()
	sum.slowest = l.worst
	require.Less(t, l.worst, bound, "no page was waited for without end")
	t.Logf("all in all %s, %d connections lost", sum.since(figures{}), l.lost.Load())

	for _, p := range []*rig.Process{ix, again, other} {
		require.NotContains(t, p.Output(), "\nredis: ", "%s: what drivers say is logged as all else is", p.Name)
	}
	written := u.diary.end(t)
	for i, q := range questions(w.truth()) {
		require.Equal(t, all[i].want, q.want, "%s: nothing that was written is an answer", q.name)
	}
	d.Reach(w.LastSeq(), ix)
	d.Settle(ix)
	require.Regexp(t, `(?m)^0 differences`, d.Run("verify", "--deep", "--wait", rig.Patience.String()))
	for _, base := range []string{one, two} {
		c := newClient(base)
		rig.Eventually(t, "all that was written meanwhile to be found", func() (bool, string) { return same(c, written) }, ix)
	}
	ix.Stop()
}

// outages are one of each server at least, and by each way to end it. Redis loses what it has when it
// is killed; asked to end, it saves that; and killed once more, it comes back with what
// it had then, which is neither.
func (u *under) outages(s *rig.Servers) []outage {
	projections := []record.Target{record.Search, record.Graph, record.Tables}
	search, edges := []record.Target{record.Search}, []record.Target{record.Graph}
	all := []outage{
		{server: s.Redis, end: s.Redis.Kill, how: "killed", targets: projections, back: u.worksOff},
		{server: s.Redis, end: func() { u.saves(); s.Redis.Stop() }, how: "stopped", targets: projections, starting: u.loads, back: u.worksOff},
		{server: s.Redis, end: s.Redis.Kill, how: "killed", targets: projections, back: u.worksOff},
		{server: s.Elastic, end: s.Elastic.Kill, how: "killed", targets: search, back: u.answers, degrades: true},
		{server: s.Neo4j, end: s.Neo4j.Stop, how: "stopped", targets: edges, back: u.answers, degrades: true},
	}
	if os.Getenv("LAYERS_FAULTS_LONG") != "" {
		all = append(all,
			outage{server: s.Elastic, end: s.Elastic.Stop, how: "stopped", targets: search, back: u.answers, degrades: true},
			outage{server: s.Neo4j, end: s.Neo4j.Kill, how: "killed", targets: edges, back: u.answers, degrades: true})
	}
	return all
}

// endure ends a server's process, looks at what is answered and written without it, and
// starts it again.
func (u *under) endure(o outage) {
	u.t.Helper()
	l := u.load
	before, begun := l.figures(), time.Now()
	o.end()
	gone := time.Now()
	l.more(u.t, "answers without "+o.server.Name, &l.answers, 30) // all that was asked for before is answered
	u.forget(o.server)
	l.away.Store(&o.server.Name)
	unavailable := l.unavailable.Load()
	l.more(u.t, "right answers without "+o.server.Name, &l.answers, 100)
	if o.degrades {
		l.more(u.t, "answers that PostgreSQL gave in its place", &l.degraded, 5)
		require.Greater(u.t, l.unavailable.Load(), unavailable, "%s: who has no other way says so", o.server.Name)
	}
	o.waiting = u.write(o)
	o.server.Gone() // all the while
	l.away.Store(nil)
	without := l.figures()
	started := time.Now()
	l.pause.Store(int64(askSeldom))
	o.server.Start()
	if o.starting != nil {
		o.starting(o.server)
	}
	rig.Within(u.t, startTime, o.server.Name+" to be of use again", func() (bool, string) { return o.back(o) }, u.ix)
	back := time.Now()
	l.pause.Store(int64(askEvery))
	l.more(u.t, "right answers with "+o.server.Name+" again", &l.answers, 50)
	after := l.figures()
	u.t.Logf("%s %s: it took %s to end; without it for %s %s; of use again %s after its start, until then %s; rows that waited: %v",
		o.server.Name, o.how, gone.Sub(begun).Round(time.Millisecond), started.Sub(gone).Round(time.Millisecond), without.since(before),
		back.Sub(started).Round(time.Millisecond), after.since(without), o.waiting)
}

// startTime is how long a server may take until it is of use: a JVM starts, on a machine
// that does much else.
const startTime = 10 * time.Minute

// write has commits published and indexed while a server is away, and requires that they
// wait for it.
func (u *under) write(o outage) map[record.Target]int64 {
	u.t.Helper()
	u.diary.more(6) // of each five, one changes something and one deletes something
	u.Reach(u.diary.world.LastSeq(), u.ix)
	waiting := map[record.Target]int64{}
	for _, target := range o.targets {
		waiting[target] = u.rows(target)
		require.Positive(u.t, waiting[target], "nothing waits for %s although %s is away", target, o.server.Name)
	}
	return waiting
}

// rows are what a projection has yet to do.
func (u *under) rows(target record.Target) (rows int64) {
	u.t.Helper()
	err := u.Database.QueryRow(u.t.Context(), "SELECT count(*) FROM outbox WHERE target = $1", target).Scan(&rows)
	require.NoError(u.t, err)
	return rows
}

// worksOff tells whether the projections go on.
func (u *under) worksOff(o outage) (bool, string) {
	for target, rows := range o.waiting {
		if u.rows(target) >= rows {
			return false, string(target)
		}
	}
	return true, ""
}

// answers tells whether the process that has no other way answers what the store should.
func (u *under) answers(o outage) (bool, string) {
	asked := slices.DeleteFunc(slices.Clone(u.load.questions), func(q question) bool { return q.by != o.server.Name })
	return same(newClient(u.strict), asked)
}

// keptWithin is how long after it was given an answer may still be put into Redis, for which
// a process has a second; and some for a machine that does much else.
const keptWithin = 2 * time.Second

// forget removes the answers that Redis keeps, which would be right for a minute, once the
// last ones that the server had a part in are kept. Where Redis itself is away there is
// nothing to remove.
func (u *under) forget(away *rig.Server) {
	u.t.Helper()
	if away.Name == "redis" {
		return
	}
	time.Sleep(keptWithin)
	script := redis.NewScript("local kept = redis.call('KEYS', 'layers:answer:*') for _, key in ipairs(kept) do redis.call('DEL', key) end return #kept")
	require.NoError(u.t, script.Run(u.t.Context(), u.Redis, nil).Err())
}

// saves has Redis save what it has when it is asked to end, and gives it so much that it
// takes its time to load that, on a fast machine too: until then it refuses every command.
func (u *under) saves() {
	u.t.Helper()
	require.NoError(u.t, u.Redis.ConfigSet(u.t.Context(), "save", "3600 1").Err())
	fill := redis.NewScript("for i = 1, 10000 do redis.call('SET', 'ballast:' .. ARGV[1] .. ':' .. i, redis.sha1hex(ARGV[1] .. i) .. redis.sha1hex(i)) end return 1")
	for part := range 90 {
		require.NoError(u.t, fill.Run(u.t.Context(), u.Redis, nil, part).Err())
	}
}

// loads asks Redis until it has loaded what it saved, and requires that it has refused
// to answer before.
func (u *under) loads(s *rig.Server) {
	u.t.Helper()
	heard := map[string]int{}
	for answer := ""; answer != "+PONG"; heard[answer]++ {
		require.Less(u.t, heard[""], 100_000, "redis does not answer: %v", heard)
		answer = ping(s.Address)
	}
	require.Contains(u.t, heard, "-LOADING", "%v", heard)
	u.t.Logf("what redis said as it started: %v", heard)
}

// ping is the first word of what Redis answers at once; empty for nothing.
func ping(address string) string {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		time.Sleep(time.Millisecond)
		return ""
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "PING\r\n")
	line, _ := bufio.NewReader(conn).ReadString('\n')
	word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	return word
}

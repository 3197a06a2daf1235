package e2e

import (
	"fmt"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/test/rig"
)

// window is how many of its latest events the network of TestBackfill keeps.
const window = 60

// TestBackfill follows a network that existed before, whose stream no longer has its
// early events, and one that goes on for longer than the stream reaches back while
// nobody listens. Both times the index must come to hold what the network holds,
// quiet repositories too. On the way the indexer is killed.
func TestBackfill(t *testing.T) {
	w := newWorld(t, simulate.Config{Seed: 23, Window: window}, simulate.ServerConfig{})
	p := &past{world: w, maker: fixture.New(23)}
	p.begin()
	// At this rate the fetches take long enough to be met, and killed, in their middle.
	d := deploy(t, w.upstream(), "LAYERS_FOREIGN_COLLECTIONS="+string(note), "LAYERS_RESYNC_HOST_RATE=5")

	first := d.Indexer("--no-workers")
	rig.Eventually(t, "the backfill to be under way", func() (bool, string) {
		done, left := d.fetched()
		return done > 2 && left > 2, fmt.Sprintf("%d fetched, %d to be fetched", done, left)
	}, first)
	first.Kill()
	done, left := d.fetched()
	require.Positive(t, done, "the kill was to come in the middle")
	require.Positive(t, left, "the kill was to come in the middle")

	ix := d.Indexer()
	d.whole(w, ix)
	d.Reach(w.LastSeq(), ix)
	d.equal(d.snapshot(), truthOf(w.World, note), "of a network that existed before")
	d.Settle(ix)
	d.verified()
	require.Contains(t, d.Run("backfill", "status"), "27 of 27 searches done")
	ix.Stop()

	before := d.Cursor()
	p.goOn()
	oldest, err := w.Frames(0, 1)
	require.NoError(t, err)
	require.Greater(t, oldest[0].Seq, before+1, "the stream was to lose events that the index needs")
	require.Greater(t, w.LastSeq(), before+2*window)

	ix = d.Indexer()
	d.Reach(w.LastSeq(), ix)
	d.whole(w, ix)
	d.equal(d.snapshot(), truthOf(w.World, note), "after a time longer than the stream reaches back")
	d.Settle(ix)
	d.verified()
	d.projected(truthOf(w.World, note))

	d.damaged(w, ix)
	ix.Stop()
}

// damaged takes records out of PostgreSQL, and has the operator's command bring them back.
func (d *deployment) damaged(w *world, ix *rig.Process) {
	d.t.Helper()
	lost := truthOf(w.World).in(expression).keys()[:2]
	for _, key := range lost {
		d.change("DELETE FROM records WHERE collection = $1 AND did = $2 AND rkey = $3", key.Collection, key.DID, key.Rkey)
	}
	handle := w.handles()[lost[0].DID]
	require.Contains(d.t, d.Run("backfill", "--repo", string(handle)), "done after")
	_, found := d.snapshot().records[lost[0]]
	require.True(d.t, found, "%s was asked for, and was not brought back", lost[0])

	output := d.Run("backfill", "--collection", string(expression))
	require.Contains(d.t, output, "0 waiting")
	require.Contains(d.t, output, "done after")
	d.Settle(ix)
	d.equal(d.snapshot(), truthOf(w.World, note), "after the operator's backfill")
	require.Contains(d.t, d.finds("backfill", "--collection", "com.example.not.followed"), "is not a collection that is followed")
}

// fetched counts the repositories that are whole and those to be fetched.
func (d *deployment) fetched() (done, left int) {
	d.t.Helper()
	err := d.Database.QueryRow(d.t.Context(),
		"SELECT (SELECT count(*) FROM repos WHERE complete AND sync = 'synchronized'), (SELECT count(*) FROM resyncs)").Scan(&done, &left)
	require.NoError(d.t, err)
	return done, left
}

// whole waits until every search is done and every active repository fetched.
func (d *deployment) whole(w *world, alive ...*rig.Process) {
	d.t.Helper()
	rig.Eventually(d.t, "every repository to be found and fetched", func() (bool, string) {
		var searching, searches, waiting int
		err := d.Database.QueryRow(d.t.Context(), `
			SELECT (SELECT count(*) FROM discoveries WHERE finished_at IS NULL), (SELECT count(*) FROM discoveries),
				(SELECT count(*) FROM resyncs) + (SELECT count(*) FROM repos WHERE sync <> 'synchronized' AND active)`).Scan(&searching, &searches, &waiting)
		require.NoError(d.t, err)
		var causes []string
		d.Rows(func(row pgx.Rows) error {
			var cause string
			err := row.Scan(&cause)
			causes = append(causes, cause)
			return err
		}, "SELECT did || ': ' || error FROM resyncs WHERE error <> '' LIMIT 3")
		return searches > 0 && searching == 0 && waiting == 0,
			fmt.Sprintf("%d of %d searches go on, %d repositories wait, failures %v", searching, searches, waiting, causes)
	}, alive...)
}

// past is what has happened in the network while nobody listened.
type past struct {
	*world
	maker   *fixture.Maker
	authors []syntax.DID
	passing syntax.DID // writes what is none of ours
}

// begin fills the network: authors with corpora, and quiet ones that write once.
func (p *past) begin() {
	p.passing = p.account("passing")
	for i := range 4 {
		p.authors = append(p.authors, p.account(fmt.Sprintf("author%d", i)))
	}
	for _, r := range fixture.Corpus(23, p.authors, 8) {
		p.commit(r.Key.DID, simulate.Create(r.Key.Collection, r.Key.Rkey, r.Value))
	}
	for i := range 40 {
		p.commit(p.account(fmt.Sprintf("quiet%d", i)), p.few(i)...)
	}
	p.pass(2 * window)
}

// few are some records of types that differ from account to account.
func (p *past) few(i int) (writes []simulate.Write) {
	for k := range 3 {
		collection := followed[(3*i+k)%len(followed)]
		writes = append(writes, simulate.Create(collection, "few", fixture.Full(collection)))
	}
	if i%4 == 0 {
		writes = append(writes, simulate.Create(note, "few", map[string]any{"$type": string(note), "text": "a note"}))
	}
	return writes
}

// pass has so many events happen that are none of ours.
func (p *past) pass(n int) {
	for range n {
		rkey := syntax.RecordKey(fmt.Sprint("post-", p.LastSeq()))
		p.commit(p.passing, simulate.Create(post, rkey, map[string]any{"$type": string(post), "text": "hello"}))
	}
}

// goOn creates, changes and deletes in every kind of repository: authors', quiet
// ones', new ones'.
func (p *past) goOn() {
	values := values(p.t, truthOf(p.World))
	for i, key := range truthOf(p.World).keys() {
		switch {
		case i%5 == 0:
			p.commit(key.DID, simulate.Delete(key.Collection, key.Rkey))
		case i%4 == 0:
			p.commit(key.DID, simulate.Update(key.Collection, key.Rkey, p.maker.Revise(values[key].value)))
		}
	}
	for i := range 6 {
		did := p.account(fmt.Sprintf("newcomer%d", i))
		p.commit(did, p.few(i)...)
		p.commit(did, simulate.Delete(followed[3*i%len(followed)], "few"))
	}
	emptied := p.account("emptied")
	p.commit(emptied, p.few(1)...)
	for _, write := range p.few(1) {
		p.commit(emptied, simulate.Delete(write.Collection, write.Rkey))
	}
	for _, key := range []record.Key{{DID: p.authors[0], Collection: expression, Rkey: "late"}} {
		p.commit(key.DID, simulate.Create(key.Collection, key.Rkey, fixture.Full(key.Collection)))
	}
	p.pass(3 * window)
}

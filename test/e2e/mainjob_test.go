package e2e

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/internal/fixture"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/test/rig"
)

const (
	post = syntax.NSID("app.bsky.feed.post")           // that nobody asked to follow
	note = syntax.NSID("com.example.fieldwork.record") // that the operator asked to follow
)

// world is a simulated network, served.
type world struct {
	*simulate.World
	t      *testing.T
	server *simulate.Server
}

func newWorld(t *testing.T, cfg simulate.Config, serving simulate.ServerConfig) *world {
	t.Helper()
	w, err := simulate.NewWorld(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	s := simulate.NewServer(w, serving)
	require.NoError(t, s.Start("127.0.0.1:0"))
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	return &world{World: w, t: t, server: s}
}

func (w *world) upstream() rig.Upstream {
	return rig.Upstream{Relay: w.server.RelayURL(), PLC: w.server.URL()}
}

func (w *world) account(name string) syntax.DID {
	w.t.Helper()
	did, err := w.CreateAccount(name)
	require.NoError(w.t, err)
	return did
}

func (w *world) commit(did syntax.DID, writes ...simulate.Write) record.Commit {
	w.t.Helper()
	c, err := w.Commit(did, writes...)
	require.NoError(w.t, err)
	return c
}

// handles are those of all accounts.
func (w *world) handles() map[syntax.DID]syntax.Handle {
	w.t.Helper()
	all := map[syntax.DID]syntax.Handle{}
	for _, did := range w.Accounts() {
		handle, err := w.Handle(did)
		require.NoError(w.t, err)
		all[did] = handle
	}
	return all
}

// letter is what a dead letter of a record says.
type letter struct{ path, reason string }

// anyPath is the path of a letter that is wanted where its path is of no interest.
const anyPath = "*"

// TestMainJob follows a network with records of every type, valid ones and invalid
// ones, from its beginning and while it goes on, through all stores to the answers.
func TestMainJob(t *testing.T) {
	w := newWorld(t, simulate.Config{Seed: 3}, simulate.ServerConfig{})
	d := deploy(t, w.upstream(), "LAYERS_FOREIGN_COLLECTIONS="+string(note),
		"LAYERS_SEARCH_FALLBACK=true", "LAYERS_GRAPH_FALLBACK=true") // every projection there is
	s := &story{world: w, maker: fixture.New(3), letters: map[record.Key]letter{}}
	s.begin()

	ix := d.Indexer("--no-workers")
	workers := []*rig.Process{d.Worker(), d.Worker()}
	d.Reach(w.LastSeq(), ix)
	s.goOn() // now the indexer sees it happen
	d.Reach(w.LastSeq(), ix)
	d.Settle(append(workers, ix)...)

	want := truthOf(w.World, note)
	require.Subset(t, collections(want), followed, "the network must hold records of every type")
	d.projected(want)
	d.letters(s.letters)
	require.Equal(t, map[string]int{"validate": len(s.letters)}, d.letterStages())

	api := d.api()
	api.gettable(want.in(followed...))
	api.gone(s.removed)
	api.listed(want, s.handles())
	api.external(want.in(note))
	s.renamed(api)
	d.verified()

	for _, p := range append(workers, ix) {
		p.Stop()
	}
}

// story is what happens in the network of TestMainJob.
type story struct {
	*world
	maker   *fixture.Maker
	authors []syntax.DID
	removed []record.Key          // written and no longer there, for whatever reason
	letters map[record.Key]letter // that must be there
}

// begin is what has happened when the indexer starts for the first time.
func (s *story) begin() {
	for _, name := range []string{"amina", "sarka", "jorg"} {
		s.authors = append(s.authors, s.account(name))
	}
	bystander := s.account("bystander") // has nothing of ours, ever
	s.commit(bystander, s.post(1))
	s.corpus(7, 12)
	s.extremes(s.authors[0])
	s.noise(bystander)
	s.edit()
}

// goOn is what happens while the indexer follows.
func (s *story) goOn() {
	s.corpus(8, 6)
	s.neighbours(s.authors[1])
	s.edit()
	s.comings()
	_, err := s.Handle(s.authors[2])
	require.NoError(s.t, err)
	require.NoError(s.t, s.ChangeHandle(s.authors[2], "joerg"))
	s.commit(s.authors[2], s.post(2))
}

// corpus publishes a corpus, a few records a commit.
func (s *story) corpus(seed uint64, documents int) {
	for i, p := range fixture.Corpus(seed, s.authors, documents) {
		writes := []simulate.Write{simulate.Create(p.Key.Collection, p.Key.Rkey, p.Value)}
		if i%5 == 0 {
			writes = append(writes, s.post(1000*int(seed)+i)) // among what is none of ours
		}
		s.commit(p.Key.DID, writes...)
	}
}

// extremes publishes, of each type, the least and the most that a record can be.
func (s *story) extremes(did syntax.DID) {
	for _, collection := range followed {
		s.commit(did, simulate.Create(collection, "least", fixture.Minimal(collection)),
			simulate.Create(collection, "most", fixture.Full(collection)))
	}
	for i := range 3 {
		s.commit(did, simulate.Create(note, syntax.RecordKey(fmt.Sprint("note-", i)),
			map[string]any{"$type": string(note), "text": fmt.Sprint("Note ", i), "about": string(s.authors[1])}))
	}
}

func (s *story) noise(did syntax.DID) {
	for i := range 20 {
		s.commit(did, s.post(100+i))
	}
}

func (s *story) post(i int) simulate.Write {
	return simulate.Create(post, syntax.RecordKey(fmt.Sprint("post-", i)), map[string]any{
		"$type": string(post), "text": fmt.Sprint("Number ", i), "createdAt": "2025-03-01T10:00:00Z",
	})
}

// neighbours publishes an invalid record of each type: created as such, and in the
// place of a valid one.
func (s *story) neighbours(did syntax.DID) {
	for i, collection := range followed {
		cases := fixture.Invalid(collection)
		created, replacing := cases[i%len(cases)], cases[(i*7+3)%len(cases)]
		write := simulate.Create(collection, "invalid", created.Value)
		write.Barred = true
		s.commit(did, write, simulate.Create(collection, "spoilt", fixture.Minimal(collection)))
		spoil := simulate.Update(collection, "spoilt", replacing.Value)
		spoil.Barred = true
		s.commit(did, spoil)
		for rkey, c := range map[syntax.RecordKey]fixture.Case{"invalid": created, "spoilt": replacing} {
			key := record.Key{DID: did, Collection: collection, Rkey: rkey}
			s.letters[key] = letter{path: c.Path}
			s.removed = append(s.removed, key)
		}
	}
}

// edit revises a record in five and deletes one in seven, of each type some.
func (s *story) edit() {
	values := values(s.t, truthOf(s.World))
	for i, key := range truthOf(s.World).keys() {
		switch {
		case i%7 == 0:
			s.commit(key.DID, simulate.Delete(key.Collection, key.Rkey))
			s.removed = append(s.removed, key)
		case i%5 == 0:
			s.commit(key.DID, simulate.Update(key.Collection, key.Rkey, s.maker.Revise(values[key].value)))
		}
	}
}

// comings has accounts leave, and one return.
func (s *story) comings() {
	for name, through := range map[string][]simulate.Status{
		"leaver":   {simulate.Deactivated},
		"returner": {simulate.Deactivated, simulate.Active},
		"ghost":    {simulate.Deleted},
		"banned":   {simulate.TakenDown},
	} {
		did := s.account(name)
		var keys []record.Key
		for _, collection := range followed {
			s.commit(did, simulate.Create(collection, "one", fixture.Minimal(collection)))
			keys = append(keys, record.Key{DID: did, Collection: collection, Rkey: "one"})
		}
		for _, status := range through {
			require.NoError(s.t, s.SetStatus(did, status))
		}
		if through[len(through)-1] != simulate.Active {
			s.removed = append(s.removed, keys...)
		}
	}
}

// renamed requires that the account's new handle has come in its old one's place.
func (s *story) renamed(api *client) {
	s.t.Helper()
	ask := func(handle string) error {
		var page struct{ Records []view }
		return api.query("pub.layers.expression.listExpressions", url.Values{"repo": {handle}}, &page)
	}
	require.NoError(s.t, ask("joerg.sim.test"))
	require.Error(s.t, ask("jorg.sim.test"), "the handle that the account has no longer must not lead to it")
}

// letters requires a dead letter for each of these records, with the record's block
// and a reason, and none for another.
func (d *deployment) letters(want map[record.Key]letter) {
	d.t.Helper()
	found := map[record.Key]letter{}
	var diff differences
	d.Rows(func(row pgx.Rows) error {
		var key record.Key
		var l letter
		var size int
		if err := row.Scan(&key.Collection, &key.DID, &key.Rkey, &l.path, &l.reason, &size); err != nil {
			return err
		}
		if l.reason == "" || size == 0 {
			diff.add("%s: reason %q, %d bytes of its block", key, l.reason, size)
		}
		found[key] = l
		return nil
	}, "SELECT collection, did, rkey, path, reason, coalesce(octet_length(raw), 0) FROM dead_letters WHERE stage = 'validate'")
	compareKeys(&diff, want, found)
	for key, l := range want {
		if have, ok := found[key]; ok && l.path != anyPath && have.path != l.path {
			diff.add("%s: path %q with reason %q, should be %q", key, have.path, have.reason, l.path)
		}
	}
	diff.require(d.t, fmt.Sprintf("dead letters (%d, should be %d)", len(found), len(want)))
}

// letterStages counts the dead letters by the stage that they come from.
func (d *deployment) letterStages() map[string]int {
	d.t.Helper()
	stages := map[string]int{}
	d.Rows(func(row pgx.Rows) error {
		var stage string
		var n int
		err := row.Scan(&stage, &n)
		stages[stage] = n
		return err
	}, "SELECT stage, count(*) FROM dead_letters GROUP BY stage")
	return stages
}

// external requires that integration.* answers with the records of a collection
// that has no lexicon here.
func (c *client) external(want truth) {
	c.t.Helper()
	require.NotEmpty(c.t, want)
	diff := each(want.keys(), func(key record.Key) error {
		var v struct {
			view
			NSID      syntax.NSID `json:"nsid"`
			FromCache bool        `json:"fromCache"`
		}
		err := c.query("pub.layers.integration.getExternal", url.Values{"uri": {key.String()}}, &v)
		if err != nil {
			return err
		}
		if v.NSID != key.Collection || !v.FromCache {
			return fmt.Errorf("nsid %s, fromCache %v", v.NSID, v.FromCache)
		}
		return simulated(want[key]).sameValue(v.Value, v.CID)
	})
	var page struct{ Records []view }
	require.NoError(c.t, c.query("pub.layers.integration.listExternal", url.Values{"nsid": {string(note)}}, &page))
	if len(page.Records) != len(want) {
		diff.add("listExternal has %d records, should have %d", len(page.Records), len(want))
	}
	diff.require(c.t, "external records")
}

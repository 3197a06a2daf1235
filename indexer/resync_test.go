package indexer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/bluesky-social/indigo/cmd/relay/stream"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/indexer"
	"github.com/layers-pub/layers-appview/indexer/resync"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/simulate"
	"github.com/layers-pub/layers-appview/internal/store"
)

func post(i int) simulate.Write {
	return simulate.Create("app.example.feed.post", rkey(i), map[string]any{"$type": "app.example.feed.post", "text": "hello"})
}

// midway makes an account that the line will meet in the middle of its history.
func (r *rig) midway(name string) syntax.DID {
	account := r.account(name)
	r.commit(account, post(0))
	return account
}

// whole waits until a repository is synchronized and no fetch of any is wanted.
func (r *rig) whole(accounts ...syntax.DID) {
	r.t.Helper()
	list := store.NewResyncs(r.db.Pool)
	defer func() {
		if r.t.Failed() {
			for _, account := range accounts {
				r.t.Logf("%+v", r.repo(account))
				r.t.Log("failures: ", r.fetcher.failures(account))
				var row string
				_ = r.db.Pool.QueryRow(context.Background(), "SELECT to_json(resyncs)::text FROM resyncs WHERE did = $1", account).Scan(&row)
				r.t.Log("row: ", row)
			}
		}
	}()
	require.Eventually(r.t, func() bool {
		repos, err := r.writer.LoadRepos(r.t.Context(), accounts)
		if err != nil {
			return false
		}
		for _, account := range accounts {
			if repos[account].Sync != store.Synchronized {
				return false
			}
		}
		progress, err := list.Progress(r.t.Context())
		return err == nil && progress.Waiting == 0
	}, patient, tick, "the repositories were not fetched")
}

func (r *rig) count(query string, args ...any) (n int) {
	r.t.Helper()
	require.NoError(r.t, r.db.Pool.QueryRow(r.t.Context(), query, args...).Scan(&n))
	return n
}

func (r *rig) held(account syntax.DID) int {
	return r.count("SELECT count(*) FROM held_events WHERE did = $1", account)
}

// injected puts frames of the test's own into the stream, before the next real one.
type injected struct {
	mu     sync.Mutex
	frames []func(seq int64) *stream.XRPCStreamEvent
	drop   func(simulate.Frame) bool
}

func (i *injected) add(frame func(seq int64) *stream.XRPCStreamEvent) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.frames = append(i.frames, frame)
}

func (i *injected) dropping(drop func(simulate.Frame) bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.drop = drop
}

func (i *injected) alter(frame simulate.Frame) (out [][]byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, event := range i.frames {
		var data bytes.Buffer
		if err := event(frame.Seq).Serialize(&data); err != nil {
			panic(err)
		}
		out = append(out, data.Bytes())
	}
	i.frames = nil
	if i.drop != nil && i.drop(frame) {
		return out
	}
	return append(out, frame.Data)
}

func TestARepositoryMetInMidHistoryIsFetched(t *testing.T) {
	t.Parallel()
	var faults injected
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{Alter: faults.alter})
	f := r.fetching()
	amara, fresh := r.midway("amara"), r.account("fresh")
	r.commit(amara, simulate.Create(corpus, "early", named("early")))
	early := r.world.LastSeq()
	faults.dropping(func(frame simulate.Frame) bool { return frame.Seq <= early })
	r.commit(amara, simulate.Create(corpus, "late", named("late")))
	r.commit(fresh, simulate.Create(corpus, "first", named("first")))
	r.start()
	r.caughtUp()
	r.whole(amara, fresh)
	r.requireTruth()
	require.Equal(t, []string{"early", "late"}, r.rkeys(amara))
	repo := r.repo(amara)
	require.True(t, repo.Complete)
	require.Equal(t, r.server.URL(), repo.PDS)
	f.finishes(amara, 1)
	require.Zero(t, f.finished(fresh), "what begins before our eyes need not be fetched")
	require.True(t, r.repo(fresh).Complete)
	require.NotEmpty(t, f.begun[amara][0].Seen, "a fetch must not be older than what was met")

	r.commit(amara, simulate.Delete(corpus, "early"), simulate.Update(corpus, "late", named("later")))
	r.caughtUp()
	r.requireTruth()
	require.Equal(t, 1, f.finished(amara))
}

func TestEventsDuringAFetchAreAppliedAfterIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	f := r.fetching()
	amara := r.midway("amara")
	for i := range 10 {
		r.commit(amara, simulate.Create(corpus, rkey(i), named("a")))
	}
	caught := 0
	f.catch(func(_ context.Context, step string, did syntax.DID) error {
		if step != fetched {
			return nil
		}
		caught++
		r.commit(amara, simulate.Create(corpus, "new", named("new")), simulate.Delete(corpus, rkey(1)))
		r.commit(amara, post(1))
		r.commit(amara, simulate.Update(corpus, "new", named("newer")), simulate.Create(corpus, rkey(1), named("back")))
		r.commit(amara, simulate.Update(corpus, rkey(2), named("other")), simulate.Delete(corpus, rkey(3)))
		require.NoError(t, r.world.Sync(amara))
		r.caughtUp()
		require.GreaterOrEqual(t, r.held(amara), 5)
		require.Empty(t, r.rkeys(amara))
		require.Equal(t, store.Resyncing, r.repo(amara).Sync)
		return nil
	})
	r.start()
	r.caughtUp()
	r.whole(amara)
	require.Equal(t, 1, caught)
	r.requireTruth()
	require.Zero(t, r.held(amara))
	require.Empty(t, f.failures(amara))
	require.Empty(t, r.letters())
}

// TestAKillAtAnyStepOfAFetchLosesNothing ends the line, or its session in the
// database, at each step, with events held; another one goes on.
func TestAKillAtAnyStepOfAFetchLosesNothing(t *testing.T) {
	t.Parallel()
	for _, step := range []string{begun, fetched, halfway, written, ended} {
		for _, how := range []string{"stopped", "session ended"} {
			t.Run(step+", "+how, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
				f := r.fetching()
				amara, other := r.midway("amara"), r.account("other")
				for i := range 20 {
					r.commit(amara, simulate.Create(corpus, rkey(i), named("a")))
				}
				reached := make(chan struct{})
				var once sync.Once
				f.catch(func(ctx context.Context, at string, _ syntax.DID) error {
					if at == step {
						once.Do(func() {
							r.commit(amara, simulate.Create(corpus, "new", named("new")), simulate.Delete(corpus, rkey(1)))
							r.commit(other, simulate.Create(corpus, "new", named("new")))
							r.caughtUp()
							if how != "stopped" {
								require.Equal(t, 1, r.endSession())
							}
							close(reached)
							<-ctx.Done()
						})
					}
					return nil
				})
				r.start()
				<-reached
				if how == "stopped" {
					r.end()
					r.commit(amara, simulate.Create(corpus, "while-away", named("x")))
					r.start()
				}
				r.commit(amara, simulate.Create(corpus, "after", named("after")))
				r.caughtUp()
				r.whole(amara, other)
				r.requireTruth()
				require.Zero(t, r.count("SELECT count(*) FROM held_events"))
				require.True(t, r.repo(amara).Complete)
			})
		}
	}
}

// endSession ends the writer's session in the database, and says how many there were.
func (r *rig) endSession() int {
	return r.count(`SELECT count(pg_terminate_backend(pid)) FROM (
		SELECT DISTINCT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database
		WHERE l.locktype = 'advisory' AND l.granted AND d.datname = current_database()) holders`)
}

func TestTooManyHeldEventsMeanAnotherFetch(t *testing.T) {
	t.Parallel()
	bounds := map[string]func(*indexer.Config){
		"events":       func(cfg *indexer.Config) { cfg.HeldEvents = 5 },
		"bytes of one": func(cfg *indexer.Config) { cfg.HeldOfOne = 3000 },
		"bytes":        func(cfg *indexer.Config) { cfg.HeldBytes = 3000 },
	}
	for name, bound := range bounds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
			r.adjust = bound
			f := r.fetching()
			amara := r.midway("amara")
			r.commit(amara, simulate.Create(corpus, "a", named("a")))
			f.onceFetched(func() {
				for i := range 12 {
					r.commit(amara, simulate.Create(corpus, rkey(i), named("a")))
				}
				r.caughtUp()
				require.LessOrEqual(t, r.held(amara), 5)
			})
			r.start()
			r.caughtUp()
			r.whole(amara)
			r.requireTruth()
			require.Len(t, f.failures(amara), 1)
			require.ErrorIs(t, f.failures(amara)[0], resync.ErrDesynchronized)
		})
	}
}

// TestAHeldForgeryDoesNotEndTheChain has events that do not hold among those held.
func TestAHeldForgeryDoesNotEndTheChain(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	f := r.fetching()
	amara := r.midway("amara")
	r.commit(amara, simulate.Create(corpus, "a", named("a")))
	f.onceFetched(func() {
		r.commit(amara, simulate.Create(corpus, "b", named("b")))
		_, err := r.world.CommitFaulty(amara, simulate.ForgedSignature, simulate.Create(corpus, "forged", named("forged")))
		require.NoError(t, err)
		r.commit(amara, simulate.Create(corpus, "c", named("c")))
		r.caughtUp()
		require.Equal(t, 3, r.held(amara))
	})
	r.start()
	r.caughtUp()
	r.whole(amara)
	r.requireTruth()
	letters := r.letters()
	require.Len(t, letters, 1)
	require.Equal(t, "signature", letters[0].Class)
}

func TestAForgedCommitHealsWhereNothingWasFetched(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	f := r.fetching()
	amara := r.account("amara")
	r.commit(amara, simulate.Create(corpus, "a", named("a")))
	refusing, partial := errors.New("the host is away"), true
	f.catch(func(_ context.Context, step string, _ syntax.DID) error {
		if step == begun {
			return refusing
		}
		return nil
	})
	forge := func() {
		_, err := r.world.CommitFaulty(amara, simulate.ForgedSignature, simulate.Create(corpus, "forged", named("forged")))
		require.NoError(t, err)
		r.caughtUp()
	}
	r.start()
	forge()
	require.Eventually(t, func() bool { return len(f.failures(amara)) > 2 }, patient, tick)
	r.commit(amara, simulate.Create(corpus, "b", named("b")))
	r.caughtUp()
	r.whole(amara)
	r.requireTruth()
	require.Zero(t, f.finished(amara), "it goes on where it was left")

	f.catch(func(_ context.Context, step string, _ syntax.DID) error {
		if step == halfway && partial {
			partial = false
			return refusing
		}
		if step == begun && !partial {
			return refusing
		}
		return nil
	})
	failures := len(f.failures(amara))
	forge()
	require.Eventually(t, func() bool { return len(f.failures(amara)) > failures+1 }, patient, tick)
	r.commit(amara, simulate.Create(corpus, "c", named("c")))
	r.caughtUp()
	require.NotEqual(t, store.Synchronized, r.repo(amara).Sync, "something of another state was written")
	f.catch(nil)
	r.whole(amara)
	f.finishes(amara, 1)
	r.requireTruth()
}

// TestAWantedFetchThatFailsLeavesARepositoryAsItWas fetches one that is healthy.
func TestAWantedFetchThatFailsLeavesARepositoryAsItWas(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	f := r.fetching()
	amara := r.account("amara")
	r.commit(amara, simulate.Create(corpus, "a", named("a")))
	r.start()
	r.caughtUp()
	n := 0
	f.catch(func(_ context.Context, step string, _ syntax.DID) error {
		if step != begun || n == 3 {
			return nil
		}
		n++
		r.commit(amara, simulate.Create(corpus, rkey(n), named("a")))
		r.caughtUp()
		return errors.New("the host is away")
	})
	_, err := f.list.Add(t.Context(), []store.Wanted{{DID: amara, Reason: "asked"}})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(f.failures(amara)) == 3 }, patient, tick)
	r.whole(amara)
	r.requireTruth()
	f.finishes(amara, 1) // what was asked for stays wanted
	require.Equal(t, store.Synchronized, f.begun[amara][1].Sync, "it went on after each failure")
	require.Len(t, r.rkeys(amara), 4)
}

// TestAFetchOlderThanTheStreamIsNotTaken has the fetch see less than the stream did.
func TestAFetchOlderThanTheStreamIsNotTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	f := r.fetching()
	amara := r.midway("amara")
	r.commit(amara, simulate.Create(corpus, "a", named("a")))
	stale := true
	older := resync.Fetched{Rev: "2222222222222", CommitCID: "old", Data: "old"}
	r.adjust = wrap(r.adjust, func(cfg *indexer.Config) {
		cfg.Resync = runner(func(ctx context.Context, line resync.Line) error {
			if stale {
				stale = false
				r.caughtUp()
				_, err := line.Begin(ctx, amara)
				require.NoError(t, err)
				require.ErrorIs(t, line.Finish(ctx, amara, older), resync.ErrDesynchronized)
				require.Equal(t, store.Desynchronized, r.repo(amara).Sync)
				require.Contains(t, r.repo(amara).Reason, "older")
			}
			return f.Run(ctx, line)
		})
	})
	r.start()
	r.caughtUp()
	r.whole(amara)
	r.requireTruth()
	require.False(t, stale)
}

type runner func(context.Context, resync.Line) error

func (r runner) Run(ctx context.Context, line resync.Line) error { return r(ctx, line) }

func wrap(first, then func(*indexer.Config)) func(*indexer.Config) {
	return func(cfg *indexer.Config) {
		first(cfg)
		then(cfg)
	}
}

func TestTheLineRefusesWhatWasNotBegun(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	amara := r.account("amara")
	r.commit(amara, simulate.Create(corpus, "a", named("a")))
	done := make(chan struct{})
	r.adjust = func(cfg *indexer.Config) {
		cfg.Resync = runner(func(ctx context.Context, line resync.Line) error {
			defer close(done)
			change := store.Change{Action: record.Delete, Key: record.Key{DID: amara, Collection: corpus, Rkey: "a"}, Resync: true}
			require.ErrorContains(t, line.Write(ctx, []store.Change{change}, nil), "no fetch")
			require.ErrorContains(t, line.Finish(ctx, amara, resync.Fetched{Rev: "3"}), "no fetch")
			require.ErrorContains(t, line.Purge(ctx, amara), "no fetch")
			require.NoError(t, line.Abandon(ctx, amara, "nothing"))
			unknown, err := line.Begin(ctx, "did:plc:unknown")
			require.NoError(t, err)
			require.Equal(t, store.Repo{DID: "did:plc:unknown"}, unknown)
			_, err = line.Begin(ctx, "did:plc:unknown")
			require.NoError(t, err, "one that was given up may begin again")
			require.NoError(t, line.Abandon(ctx, "did:plc:unknown", "gone"))
			require.Equal(t, store.Desynchronized, r.repo("did:plc:unknown").Sync)
			return nil
		})
	}
	r.start()
	<-done
	r.caughtUp()
	r.requireTruth()
}

// TestWhatTheStoreRefusesIsBuriedAlone has PostgreSQL refuse one record of a
// fetched repository, and one of an event that was held.
func TestWhatTheStoreRefusesIsBuriedAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	_, err := r.db.Pool.Exec(t.Context(), `
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF NEW.rkey LIKE 'poison%' THEN RAISE EXCEPTION 'no' USING ERRCODE = '22023'; END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER refuse BEFORE INSERT ON records FOR EACH ROW EXECUTE FUNCTION refuse()`)
	require.NoError(t, err)
	f := r.fetching()
	amara := r.midway("amara")
	r.commit(amara, simulate.Create(corpus, "a", named("a")), simulate.Create(corpus, "poison", named("p")), simulate.Create(corpus, "z", named("z")))
	f.onceFetched(func() {
		r.commit(amara, simulate.Create(corpus, "b", named("b")))
		r.commit(amara, simulate.Create(corpus, "poison2", named("p")))
		r.commit(amara, simulate.Create(corpus, "c", named("c")))
		r.caughtUp()
		require.Equal(t, 3, r.held(amara))
	})
	r.start()
	r.caughtUp()
	r.whole(amara)
	require.Equal(t, []string{"a", "b", "c", "z"}, r.rkeys(amara))
	require.ErrorIs(t, f.failures(amara)[0], resync.ErrDesynchronized, "the event took its repository's chain with it")
	names := map[string]int{}
	for _, letter := range r.letters() {
		require.Equal(t, "store", letter.Stage)
		require.NotEmpty(t, letter.Raw)
		names[string(letter.Rkey)]++
	}
	require.Equal(t, map[string]int{"poison": 1, "poison2": 1}, withoutDoubles(names),
		"the event's own letter went when its repository had been fetched")
}

func withoutDoubles(counts map[string]int) map[string]int {
	for name := range counts {
		counts[name] = 1
	}
	return counts
}

func TestADeletedAccountIsPurged(t *testing.T) {
	t.Parallel()
	for _, kill := range []string{"", begun, written} {
		t.Run("killed when "+kill, func(t *testing.T) {
			t.Parallel()
			var faults injected
			r := newRig(t, simulate.Config{KeepDeleted: true}, simulate.ServerConfig{Alter: faults.alter})
			f := r.fetching()
			amara, other := r.account("amara"), r.account("other")
			for i := range 5 {
				r.commit(amara, simulate.Create(corpus, rkey(i), named("a")))
			}
			bad := named("x")
			delete(bad, "name")
			r.commit(amara, simulate.Write{Action: record.Create, Collection: corpus, Rkey: "bad", Value: bad, Barred: true})
			r.start()
			r.caughtUp()
			require.Len(t, r.letters(), 1)

			reached := make(chan struct{})
			var once sync.Once
			f.catch(func(ctx context.Context, step string, did syntax.DID) error {
				if step == begun {
					_, err := store.NewReader(r.db.Pool).Get(ctx, record.Key{DID: amara, Collection: corpus, Rkey: rkey(0)})
					if ctx.Err() != nil {
						return ctx.Err() // it ends while we read
					}
					require.ErrorIs(t, err, store.ErrNotFound, "hidden before it is purged")
				}
				if step == kill {
					once.Do(func() { close(reached); <-ctx.Done() })
				}
				return nil
			})
			require.NoError(t, r.world.SetStatus(amara, simulate.Deleted))
			if kill != "" {
				<-reached
				r.end()
				r.start()
			}
			r.purged(amara)

			// The whole stream comes again.
			r.end()
			_, err := r.db.Pool.Exec(t.Context(), "UPDATE cursor SET seq = 0")
			require.NoError(t, err)
			r.start()
			r.commit(other, simulate.Create(corpus, "o", named("o")))
			r.caughtUp()
			r.purged(amara)
			r.requireTruth()
			row := r.repo(amara)
			require.Equal(t, store.StatusDeleted, row.Status)
			require.Empty(t, string(row.Rev)+row.PDS+string(row.Handle))

			// The account comes back.
			faults.add(func(seq int64) *stream.XRPCStreamEvent {
				return &stream.XRPCStreamEvent{RepoAccount: &comatproto.SyncSubscribeRepos_Account{
					Did: string(amara), Active: true, Seq: seq, Time: time.Now().UTC().Format(syntax.AtprotoDatetimeLayout),
				}}
			})
			r.commit(other, simulate.Create(corpus, "o2", named("o")))
			r.caughtUp()
			require.Equal(t, "active", r.repo(amara).Status)
			require.Eventually(t, func() bool { return len(f.failures(amara)) > 1 }, patient, tick, "it is to be fetched, from a host that has nothing")
		})
	}
}

// purged waits until nothing of an account is left but its tombstone.
func (r *rig) purged(account syntax.DID) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		return r.count("SELECT count(*) FROM resyncs WHERE did = $1", account) == 0 &&
			r.count("SELECT count(*) FROM repos WHERE did = $1 AND sync = 'synchronized' AND status = 'deleted'", account) == 1
	}, patient, tick, "the account was not purged")
	for _, table := range []string{"records", "refs", "dead_letters", "held_events"} {
		require.Zero(r.t, r.count("SELECT count(*) FROM "+table+" WHERE did = $1", account), table)
	}
}

func TestAnAccountStatusCountsAtOnceDuringAFetch(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	f := r.fetching()
	amara := r.midway("amara")
	r.commit(amara, simulate.Create(corpus, "a", named("a")))
	caught := 0
	f.catch(func(_ context.Context, step string, _ syntax.DID) error {
		if step != written || caught > 0 {
			return nil
		}
		caught++
		require.NoError(t, r.world.SetStatus(amara, simulate.Suspended))
		r.caughtUp()
		require.False(t, r.repo(amara).Active)
		require.Equal(t, store.Resyncing, r.repo(amara).Sync)
		return nil
	})
	r.start()
	r.caughtUp()
	r.whole(amara)
	require.Equal(t, 1, caught)
	_, err := store.NewReader(r.db.Pool).Get(t.Context(), record.Key{DID: amara, Collection: corpus, Rkey: "a"})
	require.ErrorIs(t, err, store.ErrNotFound)
	require.NoError(t, r.world.SetStatus(amara, simulate.Active))
	r.caughtUp()
	r.requireTruth()
	require.True(t, r.repo(amara).Active)
}

// TestAStatusThatWasAskedForCountsLikeAnEvent at its place of the stream: what comes
// later goes beyond it, whatever the clocks say, and what was before does not.
func TestAStatusThatWasAskedForCountsLikeAnEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	amara, other := r.account("amara"), r.account("other")
	r.commit(amara, simulate.Create(corpus, "a", named("a")))
	lines := make(chan resync.Line)
	r.adjust = func(cfg *indexer.Config) {
		cfg.Resync = runner(func(ctx context.Context, line resync.Line) error {
			select {
			case lines <- line:
			case <-ctx.Done():
			}
			<-ctx.Done()
			return ctx.Err()
		})
	}
	r.start()
	line := <-lines
	r.caughtUp()
	says := func(status string) bool {
		said, err := line.Status(t.Context(), amara, status, time.Now())
		require.NoError(t, err)
		return said
	}
	begin := func() {
		_, err := line.Begin(t.Context(), amara)
		require.NoError(t, err)
	}
	abandon := func() { require.NoError(t, line.Abandon(t.Context(), amara, "no repository")) }
	_, err := line.Status(t.Context(), amara, "deactivated", time.Now())
	require.ErrorContains(t, err, "no fetch")

	begin()
	require.True(t, says("deactivated"))
	require.False(t, r.repo(amara).Active)
	_, err = store.NewReader(r.db.Pool).Get(t.Context(), record.Key{DID: amara, Collection: corpus, Rkey: "a"})
	require.ErrorIs(t, err, store.ErrNotFound)
	require.NoError(t, r.world.SetStatus(amara, simulate.Suspended))
	r.caughtUp()
	require.Equal(t, "suspended", r.repo(amara).Status, "the event is newer, though its clock is a year behind")
	require.False(t, says("active"), "the stream has said something since the fetch began")
	require.Equal(t, "suspended", r.repo(amara).Status)
	abandon()
	require.Equal(t, store.Synchronized, r.repo(amara).Sync)

	begin()
	require.True(t, says("active"))
	abandon()
	require.True(t, r.repo(amara).Active)

	r.end() // the whole stream comes again
	_, err = r.db.Pool.Exec(t.Context(), "UPDATE cursor SET seq = 0")
	require.NoError(t, err)
	r.start()
	line = <-lines
	r.commit(other, simulate.Create(corpus, "b", named("b")))
	r.caughtUp()
	require.Equal(t, "active", r.repo(amara).Status, "older than what was asked for")
	require.NoError(t, r.world.SetStatus(amara, simulate.TakenDown))
	r.caughtUp()
	require.Equal(t, "takendown", r.repo(amara).Status)

	begin()
	require.True(t, says(store.StatusDeleted))
	require.NoError(t, line.Abandon(t.Context(), amara, "ends before it is purged"))
	require.Equal(t, store.Desynchronized, r.repo(amara).Sync)
	require.Equal(t, 1, r.count("SELECT count(*) FROM resyncs WHERE did = $1 AND due_at <= now()", amara), "somebody will purge it")
}

// TestReactivationMakesAFetchDueAtOnce postpones one for a day, as for an account
// that is not active.
func TestReactivationMakesAFetchDueAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	f := r.fetching()
	amara := r.account("amara")
	r.commit(amara, simulate.Create(corpus, "a", named("a")))
	_, err := r.world.CommitFaulty(amara, simulate.Dropped, simulate.Create(corpus, "b", named("b")))
	require.NoError(t, err)
	r.commit(amara, simulate.Create(corpus, "c", named("c")))
	require.NoError(t, r.world.SetStatus(amara, simulate.TakenDown))
	r.start()
	r.caughtUp()
	require.Eventually(t, func() bool { return len(f.failures(amara)) > 0 }, patient, tick, "the host refuses")
	require.NoError(t, f.list.Postpone(t.Context(), amara, time.Now().Add(24*time.Hour), "", "taken down"))
	require.Eventually(t, func() bool { return r.repo(amara).Sync == store.Desynchronized }, patient, tick)
	require.NoError(t, f.list.Postpone(t.Context(), amara, time.Now().Add(24*time.Hour), "", "taken down"))
	require.NoError(t, r.world.SetStatus(amara, simulate.Active))
	r.caughtUp()
	r.whole(amara)
	r.requireTruth()
	require.Equal(t, []string{"a", "b", "c"}, r.rkeys(amara))
}

// TestAnOverrunFetchesWhatTheStreamDoesNotBring loses an event of a repository that
// is quiet afterwards.
func TestAnOverrunFetchesWhatTheStreamDoesNotBring(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"OutdatedCursor", "no cursor"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			var faults injected
			r := newRig(t, simulate.Config{}, simulate.ServerConfig{Alter: faults.alter})
			r.fetching()
			amara, other := r.account("amara"), r.account("other")
			r.commit(amara, simulate.Create(corpus, "a", named("a")))
			r.commit(other, simulate.Create(corpus, "o", named("o")))
			require.NoError(t, store.NewResyncs(r.db.Pool).SaveDiscovery(t.Context(), store.Discovery{Collection: corpus, FinishedAt: time.Now()}))
			r.start()
			r.caughtUp()
			r.end()
			r.commit(amara, simulate.Create(corpus, "missed", named("missed")), simulate.Delete(corpus, "a"))
			missed := r.world.LastSeq()
			faults.dropping(func(frame simulate.Frame) bool { return frame.Seq <= missed })
			if how == "no cursor" {
				_, err := r.db.Pool.Exec(t.Context(), "UPDATE cursor SET host = 'wss://other.test'")
				require.NoError(t, err)
			} else {
				faults.add(func(int64) *stream.XRPCStreamEvent {
					return &stream.XRPCStreamEvent{RepoInfo: &comatproto.SyncSubscribeRepos_Info{Name: "OutdatedCursor"}}
				})
			}
			r.start()
			r.commit(other, simulate.Create(corpus, "o2", named("o")))
			r.caughtUp()
			r.whole(amara, other)
			r.requireTruth()
			searches, err := store.NewResyncs(r.db.Pool).Discoveries(t.Context())
			require.NoError(t, err)
			require.True(t, searches[0].FinishedAt.IsZero(), "the search for repositories begins anew too")
		})
	}
}

// TestWithoutAResyncARepositoryIsFollowedFromWhereItIsMet keeps that line as it was.
func TestWithoutAResyncARepositoryIsFollowedFromWhereItIsMet(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	amara := r.midway("amara")
	r.commit(amara, simulate.Create(corpus, "a", named("a")))
	r.start()
	r.caughtUp()
	repo := r.repo(amara)
	require.Equal(t, store.Synchronized, repo.Sync)
	require.False(t, repo.Complete)
	require.Equal(t, []string{"a"}, r.rkeys(amara))
}

// TestManyRepositoriesAreFetchedUnderLoad lets fetches, failures and commits mix.
func TestManyRepositoriesAreFetchedUnderLoad(t *testing.T) {
	t.Parallel()
	r := newRig(t, simulate.Config{}, simulate.ServerConfig{})
	f := r.fetching()
	n := 0
	f.catch(func(_ context.Context, step string, _ syntax.DID) error {
		if n++; n%7 == 3 {
			return fmt.Errorf("the %dth step failed", n)
		}
		return nil
	})
	var accounts []syntax.DID
	for i := range 8 {
		accounts = append(accounts, r.midway(fmt.Sprintf("account%d", i)))
	}
	r.start()
	for i := range 300 {
		account := accounts[i%len(accounts)]
		switch {
		case i%11 == 10:
			_, err := r.world.CommitFaulty(account, simulate.Fault(1+i%4), simulate.Create(corpus, rkey(i), named("a")))
			require.NoError(t, err)
		case i > 100 && i%3 == 0 && strings.Contains(fmt.Sprint(r.rkeys(account)), string(rkey(i-8))):
			r.commit(account, simulate.Update(corpus, rkey(i-8), named("b")))
		default:
			r.commit(account, simulate.Create(corpus, rkey(i), named("a")))
		}
	}
	for i, account := range accounts { // so that a dropped event shows
		r.commit(account, simulate.Create(corpus, rkey(1000+i), named("last")))
	}
	r.caughtUp()
	r.whole(accounts...)
	r.requireTruth()
}

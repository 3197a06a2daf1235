package task

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"

	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// TestRecordsReachEveryStore follows records of every type from the transaction
// that wrote them into the projections, through updates and deletes.
func TestRecordsReachEveryStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(w.config())
	w.create(200)
	w.settled(targets...)
	w.equal()
	w.disturb()
	w.create(60)
	w.settled(targets...)
	w.equal()
}

// TestTasksTwiceAndShuffled carries out every task twice and in any order, those of
// a time before updates and deletes among them.
func TestTasksTwiceAndShuffled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tasks := map[record.Target][]*asynq.Task{}
	gather := func() {
		for _, target := range targets {
			rows, err := w.stores.Outbox.Claim(t.Context(), target, 10_000, time.Hour)
			require.NoError(t, err)
			for _, b := range split(rows, 7) {
				raw, err := encodePayload(target, b.rows, nil)
				require.NoError(t, err)
				task := asynq.NewTask(taskType, raw)
				tasks[target] = append(tasks[target], task, task)
			}
		}
	}
	w.create(150)
	gather()
	w.disturb()
	gather()
	w.disturb()
	gather()

	var running sync.WaitGroup
	for _, target := range targets {
		one := w.worker(target)
		list := tasks[target]
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for part := range slices.Chunk(list, len(list)/4+1) {
			running.Go(func() {
				for _, task := range part {
					if err := one.process(t.Context(), task); err != nil {
						t.Errorf("task of %s: %v", target, err)
					}
				}
			})
		}
	}
	running.Wait()
	w.settled(targets...)
	w.equal()
}

// worker is one that the test drives itself.
func (w *world) worker(target record.Target) *worker {
	sink := w.stores.sinks()[target]
	logger := w.config().Logger
	guard := newBreaker(target, sink.ping, logger)
	go guard.run(w.t.Context())
	return &worker{
		target: target, reader: w.stores.Records, outbox: w.stores.Outbox, letters: w.stores.DeadLetters, sink: sink,
		memory: semaphore.NewWeighted(memoryBytes), stop: make(chan struct{}), hold: time.Minute, logger: logger,
		breaker: guard,
	}
}

// TestRedisFlushed loses all of Redis again and again while tasks are in it.
func TestRedisFlushed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(w.config())
	for range 4 {
		w.create(150)
		w.until("tasks are in Redis", func() bool {
			waiting, err := w.redis.LLen(t.Context(), "asynq:{graph:high}:pending").Result()
			require.NoError(t, err)
			begun, err := w.redis.LLen(t.Context(), "asynq:{graph:high}:active").Result()
			require.NoError(t, err)
			if waiting+begun == 0 { // they are done already, or have yet to come
				w.create(10)
				return false
			}
			require.NoError(t, w.redis.FlushDB(t.Context()).Err())
			return true
		})
		w.disturb()
	}
	w.settled(targets...)
	w.equal()
}

// TestStoreAway cuts one store off. The others go on; it catches up when it is back.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	for _, away := range []record.Target{record.Search, record.Graph} {
		t.Run(string(away), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, away)
			p := w.proxies[away]
			stop := w.run(w.config())
			w.create(40)
			w.settled(targets...)
			p.Cut()
			refused := p.Refused.Load()
			w.create(300)
			w.disturb()
			others := slices.DeleteFunc(slices.Clone(targets), func(o record.Target) bool { return o == away })
			w.settled(others...)
			w.until("connections were refused", func() bool { return p.Refused.Load() > refused })
			require.NotZero(t, w.depth(away))

			stop() // also in this state it ends, and leaves the rows to the next
			w.run(w.config())
			w.create(40)
			p.Restore()
			w.settled(targets...)
			w.equal()
		})
	}
}

// TestWhatCannotBeProjectedIsADeadLetter puts records between others that no
// projection can make anything of.
func TestWhatCannotBeProjectedIsADeadLetter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(100)
	bad := record.Key{DID: someone, Collection: "pub.layers.annotation.annotationLayer", Rkey: "bad"}
	change := store.Change{Action: record.Create, Key: bad, Rev: syntax.TID(w.tid()), CID: "bafybad", JSON: json.RawMessage(`["no object"]`)}
	w.apply([]store.Change{change})
	w.create(100)
	w.run(w.config())
	w.settled(targets...)

	for _, target := range targets {
		letters, err := w.stores.DeadLetters.List(t.Context(), store.LetterFilter{Stage: Stage(target)}, 0, 10)
		require.NoError(t, err)
		require.Len(t, letters, 1, target)
		require.Equal(t, bad, record.Key{DID: letters[0].DID, Collection: letters[0].Collection, Rkey: letters[0].Rkey})
		require.Equal(t, change.CID, letters[0].CID)
		require.NotEmpty(t, letters[0].Reason)
	}
	w.apply([]store.Change{w.change(record.Delete, bad, nil)})
	w.settled(targets...)
	w.equal() // but for it, all is there
}

// TestStoppingGivesBack stops workers that wait for a store. The rows they had are
// not lost to those who come after, however long the lease. The other targets are done
// before: of rows that are being leased at that moment the lease has to run out.
func TestStoppingGivesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, record.Search)
	p := w.proxies[record.Search]
	cfg := w.config()
	cfg.Lease = time.Hour
	p.Cut()
	stop := w.run(cfg)
	w.create(100)
	w.until("the store was asked", func() bool { return p.Refused.Load() > 0 })
	w.settled(record.Tables, record.Graph)
	stop()
	p.Restore()
	w.run(cfg)
	w.settled(targets...)
	w.equal()
}

// TestRepositoriesGoAndComeBack: nothing is left of a repository that became
// inactive, and all of it is there again after that.
func TestRepositoriesGoAndComeBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(w.config())
	w.create(80)
	w.settled(targets...)
	for _, active := range []bool{false, true} {
		status := map[bool]string{false: "takendown", true: "active"}[active]
		update := store.RepoUpdate{DID: someone, Active: &active, Status: &status}
		require.NoError(t, w.writer.Apply(t.Context(), store.Batch{Repos: []store.RepoUpdate{update}}))
		w.settled(targets...)
		keys := w.keys
		if !active {
			w.keys = nil
		}
		w.equal()
		w.keys = keys
	}
}

// TestReindexGoesToMaintenance has everything projected again.
func TestReindexGoesToMaintenance(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(500)
	w.run(w.config())
	w.settled(targets...)
	_, err := w.redis.Get(t.Context(), "asynq:{graph:maintenance}:processed").Result()
	require.ErrorIs(t, err, redis.Nil, "changes are no maintenance")

	require.NoError(t, w.direct.Graph.Wipe(t.Context()))
	var all []syntax.NSID
	for _, c := range w.cat.Collections() {
		all = append(all, c.NSID)
	}
	require.NoError(t, w.stores.Outbox.EnqueueCollections(t.Context(), record.Graph, all))
	w.settled(targets...)
	w.equal()
	done, err := w.redis.Get(t.Context(), "asynq:{graph:maintenance}:processed").Int()
	require.NoError(t, err)
	require.Positive(t, done)
}

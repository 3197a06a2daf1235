package task

import (
	"context"
	"fmt"
	"slices"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/layers-pub/layers-appview/internal/record"
)

// queueSet is the queues of one target as a dispatcher sees them.
type queueSet struct {
	target    record.Target
	redis     redis.UniversalClient
	client    *asynq.Client
	inspector *asynq.Inspector

	published map[Queue]bool // have been enqueued to, so that Redis must know them
	counted   bool
	size      int // tasks that wait in Redis: as counted last, and those enqueued since
	active    int // tasks worked on, as counted last
}

func newQueueSet(client redis.UniversalClient, target record.Target) *queueSet {
	return &queueSet{
		target: target, redis: client,
		client:    asynq.NewClientFromRedisClient(client),
		inspector: asynq.NewInspectorFromRedisClient(client),
		published: map[Queue]bool{},
	}
}

// room is how many tasks may be enqueued until limit of them wait. Between two
// counts nothing is known of tasks that were taken, so they are counted again
// when there seems to be no room.
func (s *queueSet) room(ctx context.Context, limit int) (int, error) {
	if !s.counted || s.size >= limit {
		if err := s.count(ctx); err != nil {
			return 0, err
		}
	}
	return max(limit-s.size, 0), nil
}

// idle tells whether no task waits or is worked on. One of a killed worker counts
// as worked on until asynq finds out, a minute later.
func (s *queueSet) idle(ctx context.Context) (bool, error) {
	if err := s.count(ctx); err != nil {
		return false, err
	}
	return s.size+s.active == 0, nil
}

// count takes stock of the tasks in Redis. Those worked on do not count as size:
// the workers bound them, and of a killed worker they stay for minutes.
func (s *queueSet) count(ctx context.Context) error {
	known, err := s.inspector.Queues()
	if err != nil {
		return fmt.Errorf("listing queues in redis: %w", err)
	}
	size, active := 0, 0
	for _, q := range queues {
		if !slices.Contains(known, q.name(s.target)) {
			s.forget(q)
			continue
		}
		info, err := s.inspector.GetQueueInfo(q.name(s.target))
		if err != nil {
			return fmt.Errorf("counting tasks in redis: %w", err)
		}
		size += info.Pending + info.Retry + info.Scheduled
		active += info.Active
	}
	s.size, s.active, s.counted = size, active, true
	return ctx.Err()
}

// show keeps the metrics of the queues; it may run beside all else.
func (s *queueSet) show() {
	for _, q := range queues {
		info, err := s.inspector.GetQueueInfo(q.name(s.target))
		if err != nil { // nothing was ever enqueued, or Redis is away
			info = &asynq.QueueInfo{}
		}
		for state, n := range map[string]int{"pending": info.Pending + info.Scheduled, "active": info.Active, "retry": info.Retry} {
			queueTasks.WithLabelValues(string(s.target), string(q), state).Set(float64(n))
		}
	}
}

// forget deals with a queue that Redis does not know. If it has been enqueued
// to, Redis has lost what it held, and the client, which believes the queue
// registered, would leave it uncounted for ever.
func (s *queueSet) forget(q Queue) {
	if s.published[q] {
		s.client = asynq.NewClientFromRedisClient(s.redis)
		clear(s.published)
	}
}

func (s *queueSet) enqueue(ctx context.Context, q Queue, task *asynq.Task, opts ...asynq.Option) error {
	opts = append(opts, asynq.Queue(q.name(s.target)), asynq.MaxRetry(maxRetry))
	if _, err := s.client.EnqueueContext(ctx, task, opts...); err != nil {
		return fmt.Errorf("enqueueing task: %w", err)
	}
	s.published[q] = true
	s.size++
	return nil
}

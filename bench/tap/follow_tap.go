package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/layers-pub/layers-appview/bench/program"
)

// tap is that program, and a client that takes its events as fast as they come.
type tap struct {
	network         *network
	path, database  string
	dropDatabase    func() error
	process         *program.Process
	address, figure string // of its API, and of its metrics
	client          sync.WaitGroup
	conn            *websocket.Conn
	taken           atomic.Int64 // events, by the client
}

func newTap(_ context.Context, o options, n *network, database string, dropDatabase func() error) (follower, error) {
	return &tap{network: n, path: o.tap, database: database, dropDatabase: dropDatabase}, nil
}

func newTapOnPostgres(ctx context.Context, o options, n *network) (follower, error) {
	s, err := openStores(ctx)
	if err != nil {
		return nil, err
	}
	return newTap(ctx, o, n, s.DatabaseURL, s.Drop)
}

func (t *tap) name() string {
	kind, _, _ := strings.Cut(t.database, ":")
	return "tap on " + kind
}

func (t *tap) start(ctx context.Context) error {
	ports, err := program.FreePorts(2)
	if err != nil {
		return err
	}
	t.address, t.figure = "127.0.0.1:"+ports[0], "127.0.0.1:"+ports[1]
	t.process, err = program.Launch(t.path, os.Environ(), "run", "--db-url", t.database, "--bind", t.address, "--metrics-listen", t.figure,
		"--plc-url", t.network.server.URL(), "--relay-url", t.network.server.URL(), "--full-network", "--disable-acks",
		"--collection-filters", "pub.layers.*", "--cursor-save-interval", "200ms", "--log-level", "error")
	if err != nil {
		return err
	}
	return t.connect(ctx)
}

// connect starts the client, without which tap's outbox would fill up.
func (t *tap) connect(ctx context.Context) error {
	for {
		conn, res, err := websocket.DefaultDialer.DialContext(ctx, "ws://"+t.address+"/channel", nil)
		if err == nil {
			_ = res.Body.Close()
			t.conn = conn
			break
		}
		if err := errors.Join(ctx.Err(), t.process.Alive()); err != nil {
			return fmt.Errorf("connect to tap: %w", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.client.Go(func() {
		for {
			if _, _, err := t.conn.ReadMessage(); err != nil {
				return
			}
			t.taken.Add(1)
		}
	})
	return nil
}

func (t *tap) stop() error {
	err := t.process.Stop()
	if t.conn != nil {
		_ = t.conn.Close()
	}
	t.client.Wait()
	return err
}

// caughtUp asks how many events have been verified and written. Some may be no commits.
func (t *tap) caughtUp(ctx context.Context, missed int) (bool, error) {
	if err := t.process.Alive(); err != nil {
		return false, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.figure+"/metrics", nil)
	if err != nil {
		return false, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, fmt.Errorf("ask tap for its metrics: %w", err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "tap_firehose_events_processed_total "); ok {
			n, err := strconv.ParseFloat(value, 64)
			return int(n) >= missed, err
		}
	}
	return false, lines.Err()
}

func (t *tap) compare(ctx context.Context) error {
	for did, head := range t.network.heads {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.address+"/info/"+string(did), nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("ask tap for a repository: %w", err)
		}
		var info struct{ State, Rev, Error string }
		err = json.NewDecoder(res.Body).Decode(&info)
		_ = res.Body.Close()
		if err != nil {
			return fmt.Errorf("tap's answer on a repository: %w", err)
		}
		if info.State != "active" || info.Rev != string(head) {
			return fmt.Errorf("tap has %s as %s at rev %q, should be %s: %s", did, info.State, info.Rev, head, info.Error)
		}
	}
	return nil
}

func (t *tap) used() time.Duration { return cpu(t.process.PID()) }

func (t *tap) drop() error {
	if t.dropDatabase == nil {
		return nil
	}
	return t.dropDatabase()
}

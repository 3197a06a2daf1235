package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/catalog"
)

// load is an API process and those who read from it.
type load struct {
	cancel  context.CancelFunc
	running sync.WaitGroup
	process *exec.Cmd
	dir     string
	began   time.Time
	answers atomic.Int64
	mu      sync.Mutex
	wrong   []error
}

// read starts an API process and so many readers, which ask for records at random and
// hold each answer to what was written.
func (w *world) read(ctx context.Context, readers int) (*load, error) {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel, began: time.Now()}
	if readers == 0 {
		return l, nil
	}
	base, err := l.serve(ctx, w.url)
	if err != nil {
		cancel()
		return nil, err
	}
	gets := map[syntax.NSID]syntax.NSID{}
	for _, q := range w.catalog.Queries() {
		if q.Kind == catalog.Get {
			gets[q.Collection] = q.NSID
		}
	}
	l.began = time.Now()
	for range readers {
		l.running.Go(func() {
			for ctx.Err() == nil {
				key := w.keys[rand.IntN(len(w.keys))]
				err := ask(ctx, base, gets[key.Collection], key.String(), w.cids[key])
				if ctx.Err() != nil {
					return
				}
				l.answers.Add(1)
				if err != nil {
					l.mu.Lock()
					l.wrong = append(l.wrong, err)
					l.mu.Unlock()
				}
			}
		})
	}
	return l, nil
}

func (l *load) serve(ctx context.Context, database string) (string, error) {
	var err error
	if l.dir, err = os.MkdirTemp("", "bench-reindex-*"); err != nil {
		return "", err
	}
	program := filepath.Join(l.dir, "layers")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/layers").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w: %s", err, out)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return "", err
	}
	l.process = exec.Command(program, "api")
	l.process.Env = append(os.Environ(), "DATABASE_URL="+database, "LAYERS_LISTEN="+address, "LAYERS_METRICS_LISTEN=127.0.0.1:0", "LOG_LEVEL=warn")
	l.process.Stderr = os.Stderr
	if err := l.process.Start(); err != nil {
		return "", err
	}
	base := "http://" + address
	for range 200 {
		if res, err := http.Get(base + "/ready"); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return base, nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return "", errors.New("the API does not become ready")
}

// ask gets one record and checks that it is the one that was written.
func ask(ctx context.Context, base string, query syntax.NSID, uri string, want syntax.CID) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/xrpc/"+string(query)+"?"+url.Values{"uri": {uri}}.Encode(), nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var got struct {
		URI   string          `json:"uri"`
		CID   syntax.CID      `json:"cid"`
		Value json.RawMessage `json:"value"`
	}
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || got.URI != uri || got.CID != want || len(got.Value) == 0 {
		return fmt.Errorf("%s: status %d, CID %s, should be %s", uri, res.StatusCode, got.CID, want)
	}
	return nil
}

// stop ends the readers and says what they saw.
func (l *load) stop() error {
	l.cancel()
	l.running.Wait()
	if l.process == nil {
		return nil
	}
	took := time.Since(l.began)
	_ = l.process.Process.Signal(syscall.SIGTERM)
	_ = l.process.Wait()
	fmt.Printf("readers: %d answers, %.0f/s, %d of them wrong\n", l.answers.Load(), float64(l.answers.Load())/took.Seconds(), len(l.wrong))
	return errors.Join(append(l.wrong[:min(5, len(l.wrong))], os.RemoveAll(l.dir))...)
}

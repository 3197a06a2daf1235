package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/gorilla/websocket"

	"github.com/layers-pub/layers-appview/internal/cache"
)

// account is whose repository it is. Only a benchmark ever sees its key.
const account syntax.DID = "did:plc:benchbenchbenchbenchbenc"

// host is the whole network of one account: PLC directory, relay and PDS. Its stream
// says nothing: what the account wrote was written before.
type host struct {
	url    string
	server *http.Server
	public string
	serves atomic.Pointer[string] // path of the archive
	asked  atomic.Int64           // how often for it
}

// archives are the repository's two states on disk, and the key that signed them.
type archives struct {
	dir string
	key *atcrypto.PrivateKeyK256
}

func (a archives) path(edited bool) string {
	return filepath.Join(a.dir, fmt.Sprintf("edited-%t.car", edited))
}

// openArchives finds both states in the cache or makes them.
func openArchives(records int) (archives, error) {
	dir, err := cache.Install(fmt.Sprintf("bench-repository-1-%d", records), func(dir string) error {
		key, err := atcrypto.GeneratePrivateKeyK256()
		if err != nil {
			return fmt.Errorf("make a key: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "key"), key.Bytes(), 0o644); err != nil {
			return err
		}
		for _, edited := range []bool{false, true} {
			file, err := os.Create(archives{dir: dir}.path(edited))
			if err != nil {
				return err
			}
			if err := (state{records, edited}).write(file, account, key); err != nil {
				return err
			}
			if err := file.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return archives{}, fmt.Errorf("make the repository: %w", err)
	}
	secret, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil {
		return archives{}, err
	}
	key, err := atcrypto.ParsePrivateBytesK256(secret)
	return archives{dir: dir, key: key}, err
}

func serve(of archives) (*host, error) {
	public, err := of.key.PublicKey()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	h := &host{url: "http://" + listener.Addr().String(), public: public.Multibase()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /"+string(account), h.document)
	mux.HandleFunc("GET /xrpc/com.atproto.sync.getRepo", h.getRepo)
	mux.HandleFunc("GET /xrpc/com.atproto.sync.listReposByCollection", h.listRepos)
	mux.HandleFunc("GET /xrpc/com.atproto.sync.subscribeRepos", h.subscribe)
	h.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = h.server.Serve(listener) }() // ends with Close
	return h, nil
}

func (h *host) document(out http.ResponseWriter, _ *http.Request) {
	answer(out, map[string]any{
		"id": account,
		"verificationMethod": []any{map[string]any{
			"id": account + "#atproto", "type": "Multikey", "controller": account, "publicKeyMultibase": h.public,
		}},
		"service": []any{map[string]any{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": h.url}},
	})
}

func (h *host) getRepo(out http.ResponseWriter, in *http.Request) {
	h.asked.Add(1)
	out.Header().Set("Content-Type", "application/vnd.ipld.car")
	http.ServeFile(out, in, *h.serves.Load())
}

func (h *host) listRepos(out http.ResponseWriter, in *http.Request) {
	repos := []any{}
	if in.URL.Query().Get("collection") == string(collection) {
		repos = append(repos, map[string]any{"did": account})
	}
	answer(out, map[string]any{"repos": repos})
}

func (h *host) subscribe(out http.ResponseWriter, in *http.Request) {
	conn, err := (&websocket.Upgrader{}).Upgrade(out, in, nil)
	if err != nil {
		return // it has answered
	}
	defer conn.Close()
	for {
		if _, _, err := conn.NextReader(); err != nil {
			return
		}
	}
}

func answer(out http.ResponseWriter, value any) {
	out.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(out).Encode(value) // the client is gone; nobody to tell
}

// environment is what tells the program of the network.
func (h *host) environment() []string {
	return []string{
		"LAYERS_RELAY_URL=" + strings.Replace(h.url, "http", "ws", 1), "LAYERS_PLC_URL=" + h.url,
		"LAYERS_ALLOW_PRIVATE_HOSTS=true", "LAYERS_LISTEN=127.0.0.1:0", "LAYERS_METRICS_LISTEN=127.0.0.1:0", "LOG_FORMAT=text",
	}
}

package appview

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/appview/xrpc"
	"github.com/layers-pub/layers-appview/internal/catalog"
	"github.com/layers-pub/layers-appview/internal/record"
	"github.com/layers-pub/layers-appview/internal/store"
)

// instant is a store that answers at once, so that what is left is the server's own work.
type instant struct {
	holding
	page []record.Record
}

func (i instant) List(context.Context, store.Query) (store.Page, error) {
	at := store.Position{DID: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", Rkey: "3lwafzkjqm25s"}
	return store.Page{Records: i.page, Next: &at}, nil
}

// sink takes an answer without keeping it.
type sink struct{ header http.Header }

func (s sink) Header() http.Header         { return s.header }
func (s sink) WriteHeader(int)             {}
func (s sink) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkServer is what a request costs besides the store and the socket.
func BenchmarkServer(b *testing.B) {
	c, err := catalog.Load()
	require.NoError(b, err)
	value := `{"text":"` + strings.Repeat("x", 1500) + `"}`
	one := record.Record{
		Key:   record.Key{DID: "did:plc:ewvi7nxzyoun6zhxrhs64oiz", Collection: "pub.layers.corpus.corpus", Rkey: "3lwafzkjqm25s"},
		CID:   "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
		Value: json.RawMessage(value),
	}
	reads := instant{holding{value: value}, nil}
	for range 50 {
		reads.page = append(reads.page, one)
	}
	server, err := New(Config{Listen: "127.0.0.1:0", MetricsListen: "127.0.0.1:0"}, Deps{
		XRPC:    xrpc.New(c, reads, nil),
		Metrics: prometheus.NewRegistry(),
		Logger:  slog.New(slog.NewJSONHandler(discard{}, nil)),
	})
	require.NoError(b, err)
	defer server.Close()
	for name, target := range map[string]string{
		"get":  aGet,
		"list": "/xrpc/pub.layers.corpus.listCorpora?limit=50&repo=did%3Aplc%3Aewvi7nxzyoun6zhxrhs64oiz",
	} {
		b.Run(name, func(b *testing.B) {
			req := httptest.NewRequest(http.MethodGet, target, nil)
			b.ReportAllocs()
			for b.Loop() {
				server.public.Handler.ServeHTTP(sink{http.Header{}}, req)
			}
		})
	}
}

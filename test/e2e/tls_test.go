package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layers-pub/layers-appview/test/rig"
)

// authority signs certificates of servers on loopback.
type authority struct {
	file string // its own certificate
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	a := &authority{file: filepath.Join(t.TempDir(), "ca.crt"), key: key}
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return a
}

// server is the configuration of a server at 127.0.0.1.
func (a *authority) server(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "store of a test"}, NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	require.NoError(t, err)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
}

// guarded is a real store that is reached by TLS alone.
type guarded struct {
	URL               string
	Accepted, Refused atomic.Int64 // handshakes
}

// guard puts TLS in front of the store at address; scheme says so. PostgreSQL's
// clients ask for it in a message before.
func guard(t *testing.T, by *authority, address, scheme string) *guarded {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	store, config := u.Host, by.server(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	u.Host, u.Scheme, u.RawQuery = listener.Addr().String(), scheme, ""
	g := &guarded{URL: u.String()}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go g.pass(conn, store, config, scheme == "postgres")
		}
	}()
	return g
}

func (g *guarded) pass(conn net.Conn, store string, config *tls.Config, asked bool) {
	defer conn.Close()
	if asked {
		request := make([]byte, 8) // SSLRequest, which is answered by a byte
		if _, err := io.ReadFull(conn, request); err != nil || string(request[4:]) != "\x04\xd2\x16\x2f" {
			g.Refused.Add(1)
			return
		}
		_, _ = conn.Write([]byte("S"))
	}
	secure := tls.Server(conn, config)
	if err := secure.Handshake(); err != nil {
		g.Refused.Add(1)
		return
	}
	// With TLS 1.3 a client may refuse the certificate after the server's part is done.
	first := make([]byte, 1)
	if _, err := io.ReadFull(secure, first); err != nil {
		g.Refused.Add(1)
		return
	}
	g.Accepted.Add(1)
	behind, err := net.Dial("tcp", store)
	if err != nil {
		return
	}
	defer behind.Close()
	if _, err := behind.Write(first); err != nil {
		return
	}
	go func() { _, _ = io.Copy(behind, secure); behind.Close() }()
	_, _ = io.Copy(secure, behind)
}

// The program believes the certificates of the authority that it was given, for each
// of the four stores, and of no other.
func TestStoresAreReachedByTLS(t *testing.T) {
	t.Parallel()
	right, wrong := newAuthority(t), newAuthority(t)
	stores := rig.OpenStores(t)
	postgres, redis := guard(t, right, stores.DatabaseURL, "postgres"), guard(t, right, stores.RedisURL, "rediss")
	elastic, neo4j := guard(t, right, stores.Elastic, "https"), guard(t, right, stores.Neo4jURL, "bolt+s")
	settings := []string{"DATABASE_URL=" + postgres.URL, "REDIS_URL=" + redis.URL, "ELASTICSEARCH_URL=" + elastic.URL, "NEO4J_URL=" + neo4j.URL}

	d := rig.Prepare(t, stores, rig.Upstream{}, append(settings, "LAYERS_CA_FILE="+wrong.file)...)
	require.Contains(t, d.RunFailing(1, "migrate"), "certificate signed by unknown authority")
	require.Zero(t, postgres.Accepted.Load(), "PostgreSQL heard nothing from a client that does not know it")

	d = rig.Deploy(t, stores, rig.Upstream{}, append(settings, "LAYERS_CA_FILE="+right.file)...)
	base, believing := d.Replica(rig.FreeAddress(t))
	says(t, base+"/ready", `{"status":"ready"}`)
	for name, g := range map[string]*guarded{"postgresql": postgres, "elasticsearch": elastic, "neo4j": neo4j} {
		require.NotZero(t, g.Accepted.Load(), name)
		require.True(t, name == "postgresql" || g.Refused.Load() == 0, name)
	}
	require.Zero(t, redis.Refused.Load())
	before := redis.Accepted.Load()
	worker := d.Worker()
	rig.Eventually(t, "a worker to reach Redis", func() (bool, string) { return redis.Accepted.Load() > before, "" }, worker)
	worker.Stop() // and the other, so that from now on nobody is heard
	believing.Stop()

	// The three that the API can do without, in the eyes of one that does not know them.
	open, err := url.Parse(stores.DatabaseURL)
	require.NoError(t, err)
	open.RawQuery = "sslmode=disable"
	d = rig.Prepare(t, stores, rig.Upstream{}, append(settings, "DATABASE_URL="+open.String(), "LAYERS_CA_FILE="+wrong.file)...)
	heard := []int64{elastic.Accepted.Load(), neo4j.Accepted.Load()}
	api := d.API()
	says(t, api+"/ready", `{"status":"ready","degraded":{"elasticsearch":"unreachable","neo4j":"unreachable"}}`)
	require.Equal(t, heard, []int64{elastic.Accepted.Load(), neo4j.Accepted.Load()})
	ask(t, api+"/api/v1/corpora")
	ask(t, api+"/api/v1/references?target=at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/pub.layers.corpus.corpus/a")
	rig.Eventually(t, "Redis to be refused", func() (bool, string) { return redis.Refused.Load() > 0, "" })
}

// says waits until an address answers with a JSON value: a store that is slow for once
// is named as unreachable for a while, or not yet.
func says(t *testing.T, address, want string) {
	t.Helper()
	var wanted any
	require.NoError(t, json.Unmarshal([]byte(want), &wanted))
	rig.Eventually(t, address+" to say "+want, func() (bool, string) {
		body := ask(t, address)
		var said any
		err := json.Unmarshal([]byte(body), &said)
		return err == nil && equalData(said, wanted), body
	})
}

func ask(t *testing.T, address string) string {
	t.Helper()
	response, err := http.Get(address)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return string(body)
}

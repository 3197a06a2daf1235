//go:build deploy

package deploy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// runtimes are variables of Go itself.
var runtimes = []string{"GOMEMLIMIT", "GOGC"}

// The program is started with what the manifests tell it: it knows every variable and
// finds nothing wrong with any, and then fails for want of a database.
func TestTheProgramTakesTheSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := filepath.Join(dir, "layers")
	out, err := exec.Command("go", "build", "-o", program, "../../cmd/layers").CombinedOutput()
	require.NoError(t, err, string(out))
	help := ""
	for _, command := range []string{"api", "indexer"} {
		out, err := exec.Command(program, command, "--help").Output()
		require.NoError(t, err)
		help += string(out)
	}
	for name, namespace := range environments {
		objects := parse(t, overlay(t, name))
		for _, role := range []string{"api", "indexer"} {
			c := containers(pods(objects)["Deployment/"+namespace+"/layers-"+role])[0]
			env := []string{}
			for variable, value := range environment(objects, c) {
				known := strings.Contains(help, strings.TrimSuffix(variable, "_FILE")) || variable == runtimes[0] || variable == runtimes[1]
				require.True(t, known, "%s: %s is no setting of the program", name, variable)
				env = append(env, variable+"="+here(t, dir, variable, value))
			}
			command := exec.Command(program, role)
			command.Env = append(env, "LAYERS_LISTEN=127.0.0.1:0", "LAYERS_METRICS_LISTEN=127.0.0.1:0")
			out, err := command.CombinedOutput()
			require.Error(t, err)
			require.Contains(t, string(out), "connect to PostgreSQL", "%s %s", name, role)
		}
	}
}

// here puts a file that a setting names below dir, with what such a file has.
func here(t *testing.T, dir, variable, value string) string {
	t.Helper()
	if !strings.HasSuffix(variable, "_FILE") {
		return value
	}
	content := "secret-of-" + variable
	switch variable {
	case "DATABASE_URL_FILE":
		content = "postgres://layers@127.0.0.1:1/layers"
	case "REDIS_URL_FILE":
		content = "redis://127.0.0.1:1/0"
	case "LAYERS_CA_FILE":
		content = certificate(t)
	}
	file := filepath.Join(dir, variable)
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	return file
}

func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHealthIsTheExitCode(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, r.URL.Path)
	}))
	var out bytes.Buffer
	ask := func() error {
		return newApp(&out, io.Discard).Run(t.Context(), []string{"layers", "health", "--url", server.URL + "/ready"})
	}
	require.NoError(t, ask())
	require.Equal(t, "/ready\n", out.String())
	status = http.StatusServiceUnavailable
	require.ErrorContains(t, ask(), "not ready: 503")
	server.Close()
	require.ErrorContains(t, ask(), "not there")
}

package appview

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"
)

func unpack(t *testing.T, coding string, body []byte) string {
	t.Helper()
	var r io.Reader = bytes.NewReader(body)
	var err error
	switch coding {
	case "gzip":
		r, err = gzip.NewReader(r)
	case "zstd":
		r, err = zstd.NewReader(r)
	}
	require.NoError(t, err)
	text, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(text)
}

func TestAnswersArePackedAsTheClientAccepts(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("annotation ", 1000)
	e := echo.New()
	e.Use(compressed(4 << 10))
	e.GET("/large", func(c echo.Context) error { return c.String(http.StatusOK, large) })
	e.GET("/small", func(c echo.Context) error { return c.String(http.StatusOK, "small") })
	e.GET("/none", func(c echo.Context) error { return c.NoContent(http.StatusNotModified) })
	e.GET("/wrong", func(echo.Context) error { return echo.NewHTTPError(http.StatusBadRequest, large) })
	e.HEAD("/large", func(c echo.Context) error { return c.String(http.StatusOK, large) })
	e.GET("/stream", func(c echo.Context) error {
		for range 3 {
			if _, err := io.WriteString(c.Response(), "line\n"); err != nil {
				return err
			}
			if err := http.NewResponseController(c.Response().Writer).Flush(); err != nil {
				return err
			}
		}
		return nil
	})
	server := httptest.NewServer(e)
	defer server.Close()
	ask := func(method, path, accept string) (*http.Response, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
		require.NoError(t, err)
		req.Header.Set("Accept-Encoding", accept)
		res, err := http.DefaultTransport.RoundTrip(req)
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Equal(t, "Accept-Encoding", res.Header.Get("Vary"))
		return res, unpack(t, res.Header.Get("Content-Encoding"), body)
	}
	for accept, want := range map[string]string{
		"gzip": "gzip", "zstd": "zstd", "gzip, zstd": "zstd", "gzip, deflate, br, zstd": "zstd", "zstd;q=0.5, gzip": "gzip",
		"zstd;q=0, gzip;q=0.1": "gzip", "GZIP": "gzip", "*": "gzip", "gzip;q=0": "", "identity": "", "br": "", "": "", "zstd;q=x": "",
	} {
		res, text := ask(http.MethodGet, "/large", accept)
		require.Equal(t, want, res.Header.Get("Content-Encoding"), accept)
		require.Equal(t, large, text, accept)
	}
	res, text := ask(http.MethodGet, "/small", "zstd")
	require.Empty(t, res.Header.Get("Content-Encoding"))
	require.Equal(t, "small", text)
	res, text = ask(http.MethodGet, "/none", "zstd")
	require.Equal(t, http.StatusNotModified, res.StatusCode)
	require.Empty(t, text)
	res, text = ask(http.MethodGet, "/wrong", "zstd")
	require.Equal(t, http.StatusBadRequest, res.StatusCode)
	require.Equal(t, "zstd", res.Header.Get("Content-Encoding"))
	require.Contains(t, text, large)
	res, _ = ask(http.MethodHead, "/large", "zstd")
	require.Empty(t, res.Header.Get("Content-Encoding"))
	for _, coding := range []string{"zstd", "gzip", ""} {
		res, text = ask(http.MethodGet, "/stream", coding)
		require.Equal(t, coding, res.Header.Get("Content-Encoding"))
		require.Equal(t, "line\nline\nline\n", text)
	}
}

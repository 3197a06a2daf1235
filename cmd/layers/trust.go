package main

import (
	"crypto/x509"
	"net/url"
	"os"
)

// authorities are those of a PEM file that a flag names; nil, for the system's, if it
// names none.
func (r *configReader) authorities(flag string) *x509.CertPool {
	file := r.command.String(flag)
	if file == "" {
		return nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		r.fail(flag, "%v", err)
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		r.fail(flag, "%q has no certificate in PEM form", file)
	}
	return pool
}

// believing has PostgreSQL's certificate be one of the authorities in caFile, in the
// words that a URL has for it. Without a mode, the server is verified in full, which
// no file would be named for otherwise. What the URL says itself counts.
func believing(address, caFile string) string {
	u, err := url.Parse(address)
	if address == "" || caFile == "" || err != nil {
		return address
	}
	query := u.Query()
	if !query.Has("sslrootcert") {
		query.Set("sslrootcert", caFile)
	}
	if !query.Has("sslmode") {
		query.Set("sslmode", "verify-full")
	}
	u.RawQuery = query.Encode()
	return u.String()
}

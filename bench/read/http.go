package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
)

// newHTTPCallers opens connections to the API. Each writes requests that were
// put together before and reads just as much of an answer as it must: the client
// shares the machine with what it measures, so it does as little as pgbench does.
func newHTTPCallers(ctx context.Context, base *url.URL, paths []string, connections int) ([]caller, func(), error) {
	requests := make([][]byte, len(paths))
	for i, path := range paths {
		requests[i] = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, base.Host)
	}
	var conns []net.Conn
	closeAll := func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}
	var callers []caller
	for range connections {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", base.Host)
		if err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("connect to the API: %w", err)
		}
		conns = append(conns, conn)
		answers := bufio.NewReaderSize(conn, 256<<10)
		callers = append(callers, func(rng *rand.Rand) error {
			if _, err := conn.Write(requests[rng.IntN(len(requests))]); err != nil {
				return fmt.Errorf("send request: %w", err)
			}
			return readAnswer(answers)
		})
	}
	return callers, closeAll, nil
}

// readAnswer reads one answer of known length and drops its body; an answer
// other than 200 is an error.
func readAnswer(r *bufio.Reader) error {
	status, err := r.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answer is %q, expected 200", status)
	}
	length := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("read header: %w", err)
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return fmt.Errorf("read header: %w", err)
			}
		}
	}
	if length < 0 {
		return fmt.Errorf("answer names no length")
	}
	_, err = r.Discard(length)
	return err
}

package daemon

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// FreePort returns a port of 127.0.0.1 that nobody listens on. It lies below those
// that systems give to outgoing connections, so that none of these takes it before
// the server does.
func FreePort() (int, error) {
	const lowest, ports, tries = 20000, 12000, 100
	// A child process forked while we listen would hold the port until it has
	// become its program.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	var err error
	for range tries {
		port := lowest + rand.IntN(ports)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

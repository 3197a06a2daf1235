package firehose

// hosts chooses among the hosts of the list: the first one for as long as it works,
// the next when one has failed several times in a row.
type hosts struct {
	list     []string
	patience int // failures of one host in a row
	index    int
	failures int // of the current host, in a row
	attempts int // of any host, in a row
}

func (h *hosts) current() string { return h.list[h.index] }
func (h *hosts) first() string   { return h.list[0] }

// failed notes that a connection to the current host ended, and moves to the next
// host where that was one time too many. After a connection that has lived for a
// while the count begins anew.
func (h *hosts) failed(lived bool) (moved bool) {
	if lived {
		h.failures, h.attempts = 0, 0
	}
	h.failures++
	h.attempts++
	if len(h.list) == 1 || h.failures < h.patience {
		return false
	}
	h.failures, h.index = 0, (h.index+1)%len(h.list)
	return true
}

// back goes to the first host.
func (h *hosts) back() { h.index, h.failures, h.attempts = 0, 0, 0 }

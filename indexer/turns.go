package indexer

import "runtime"

// turns let as many workers compute at once as there are cores but one. All of them
// wait for the stage in order, which wakes with every answer of PostgreSQL: it would
// stand in line behind the workers each time, several milliseconds a commit.
type turns chan struct{}

func newTurns() turns { return make(turns, max(1, runtime.GOMAXPROCS(0)-1)) }

// take waits for a turn. Who waits for the network meanwhile leaves it, see
// [verify.Aside].
func (t turns) take() { t <- struct{}{} }

func (t turns) leave() { <-t }

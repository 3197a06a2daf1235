package graph

// memory is what the server calls the nodes that a filler has made or found, by kind
// and key. It is bounded: of the nodes not asked for in a long time some are forgotten.
type memory struct {
	young, old map[string]int64
}

// maxYoung is half of what is remembered: some 170 bytes a node.
const maxYoung = 300_000

func (m *memory) id(name string) (int64, bool) {
	if id, ok := m.young[name]; ok {
		return id, true
	}
	id, ok := m.old[name]
	if ok {
		m.young[name] = id
	}
	return id, ok
}

// add remembers nodes, and tells whether others are forgotten for that.
func (m *memory) add(ids map[string]int64) (forgotten bool) {
	if m.young == nil || len(m.young)+len(ids) > maxYoung {
		forgotten = len(m.old) > 0
		m.old, m.young = m.young, map[string]int64{}
	}
	for name, id := range ids {
		m.young[name] = id
	}
	return forgotten
}

package store

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/layers-pub/layers-appview/internal/record"
)

// prepared is what a batch needs of a change and that follows from the change alone.
type prepared struct {
	hash    int64   // of the record's URI, by which its referrers are found
	filter  *string // [Change.Filter] as JSON; nil for none
	targets []target
	hashes  []int64 // of the targets, each once, in their order
	err     error
}

// target is a reference as the table refs has it.
type target struct {
	record.Link
	hash int64
}

// Prepare works out what [Writer.Apply] needs of a change besides what is stored. Apply
// does that where it was not done before, but one transaction at a time.
func (c *Change) Prepare() {
	if c.prepared != nil {
		return
	}
	p := &prepared{}
	if c.Action != record.Delete {
		p.hash = TargetHash(c.Key.String())
		p.filter, p.err = c.filterText()
		p.addTargets(c)
	}
	c.prepared = p
}

func (c *Change) filterText() (*string, error) {
	if len(c.Filter) == 0 {
		return nil, nil
	}
	encoded, err := json.Marshal(c.Filter)
	if err != nil {
		return nil, fmt.Errorf("encode the filter of %s: %w", c.Key, err)
	}
	text := string(encoded)
	return &text, nil
}

// addTargets takes each reference once: a URI may name a record too, and the table has
// one column for all targets.
func (p *prepared) addTargets(c *Change) {
	p.targets = make([]target, 0, len(c.Refs)+len(c.Links))
	for _, r := range c.Refs {
		p.targets = append(p.targets, target{Link: record.Link{Path: r.Path, Target: string(r.Target)}})
	}
	for _, l := range c.Links {
		p.targets = append(p.targets, target{Link: l})
	}
	for i := range p.targets {
		p.targets[i].hash = TargetHash(p.targets[i].Target)
	}
	slices.SortFunc(p.targets, target.compare)
	p.targets = slices.Compact(p.targets)
	p.hashes = make([]int64, len(p.targets))
	for i := range p.targets {
		p.hashes[i] = p.targets[i].hash
	}
	p.hashes = slices.Compact(p.hashes)
}

// compare orders by the index of targets.
func (t target) compare(other target) int {
	return cmp.Or(cmp.Compare(t.hash, other.hash), cmp.Compare(t.Path, other.Path), cmp.Compare(t.Target, other.Target))
}

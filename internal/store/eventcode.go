package store

import (
	"encoding/binary"
	"errors"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
)

// The content of a row of events is, for each of them: the version as what is added
// to the one before, a letter for what happened, collection, DID, record key, CID or
// status, the number of targets, and these, eight bytes each. Numbers are unsigned
// varints. A text has its length before it; the DID and the collection are 0 where
// they are those of the event before, and their length plus one otherwise.

// encodeEvents packs the events of a transaction.
func encodeEvents(events []loggedEvent) []byte {
	b := make([]byte, 0, 128*len(events))
	var before loggedEvent
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	changed := func(s, before string) {
		if s == before {
			b = append(b, 0)
			return
		}
		b = binary.AppendUvarint(b, uint64(len(s))+1)
		b = append(b, s...)
	}
	for _, e := range events {
		b = binary.AppendUvarint(b, uint64(e.version-before.version))
		b = append(b, e.letter)
		changed(string(e.key.Collection), string(before.key.Collection))
		changed(string(e.key.DID), string(before.key.DID))
		text(string(e.key.Rkey))
		text(e.detail)
		b = binary.AppendUvarint(b, uint64(len(e.targets)))
		for _, hash := range e.targets {
			b = binary.BigEndian.AppendUint64(b, uint64(hash))
		}
		before = e
	}
	return b
}

var errEventCode = errors.New("the log of events has a row that cannot be read")

// eventCode is what is left to be read of a row.
type eventCode struct {
	left []byte
	bad  bool
}

func (c *eventCode) number() uint64 {
	n, size := binary.Uvarint(c.left)
	if size <= 0 {
		c.bad, c.left = true, nil
		return 0
	}
	c.left = c.left[size:]
	return n
}

func (c *eventCode) bytes(n uint64) []byte {
	if n > uint64(len(c.left)) {
		c.bad, c.left = true, nil
		return nil
	}
	b := c.left[:n]
	c.left = c.left[n:]
	return b
}

func (c *eventCode) letter() byte {
	if b := c.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (c *eventCode) text() string { return string(c.bytes(c.number())) }

func (c *eventCode) changed(before string) string {
	n := c.number()
	if n == 0 {
		return before
	}
	return string(c.bytes(n - 1))
}

// decodeEvents unpacks a row.
func decodeEvents(content []byte) (events []loggedEvent, err error) {
	c := eventCode{left: content}
	var before loggedEvent
	for len(c.left) > 0 {
		e := loggedEvent{version: before.version + int64(c.number()), letter: c.letter()}
		e.key = record.Key{
			Collection: syntax.NSID(c.changed(string(before.key.Collection))),
			DID:        syntax.DID(c.changed(string(before.key.DID))),
			Rkey:       syntax.RecordKey(c.text()),
		}
		e.detail = c.text()
		n := c.number()
		hashes := c.bytes(8 * min(n, mostTargets))
		for ; len(hashes) > 0; hashes = hashes[8:] {
			e.targets = append(e.targets, int64(binary.BigEndian.Uint64(hashes)))
		}
		if c.bad || n > mostTargets {
			return nil, errEventCode
		}
		events, before = append(events, e), e
	}
	return events, nil
}

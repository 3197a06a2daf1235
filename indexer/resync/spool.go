package resync

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/semaphore"

	"github.com/layers-pub/layers-appview/indexer/verify"
)

// Limits bound what one fetched repository may cost.
type Limits struct {
	Bytes  int64 // of the CAR, decoded; they go to a file. 8 GiB by default
	Blocks int   // each costs some 25 bytes of memory; 6,000,000 by default
}

const (
	maxHeader  = 4 << 10
	maxSection = 2 << 20 // CID and block; the protocol's largest block has 1,000,000 bytes
	spoolRoom  = 256 << 10
	largeAt    = 250_000 // blocks from which a repository is large
)

// spool is a repository's CAR in a file that has no name, so that it is gone when
// the process is. Blocks may be in any order.
type spool struct {
	file  *os.File
	root  cid.Cid
	size  int64 // of the CAR
	index index

	room  []byte // the last block read
	large *semaphore.Weighted
	holds bool // a place of large
}

// spooler makes spools. At most one large one is held at a time, so that memory has
// a bound whatever many hosts send at once.
type spooler struct {
	dir    string // for the files; the system's for temporary ones if empty
	limits Limits
	large  *semaphore.Weighted
}

func newSpooler(dir string, limits Limits) *spooler {
	return &spooler{dir: dir, limits: limits, large: semaphore.NewWeighted(1)}
}

// read takes a CAR version 1 from a host. What it returns must be closed. It fails
// with a [Refusal], with body's error, or with one of the file.
func (s *spooler) read(ctx context.Context, body io.Reader) (*spool, error) {
	file, err := os.CreateTemp(s.dir, "layers-resync-*.car")
	if err != nil {
		return nil, fmt.Errorf("making a file for a repository: %w", err)
	}
	sp := &spool{file: file, large: s.large}
	if err := os.Remove(file.Name()); err != nil {
		sp.close()
		return nil, fmt.Errorf("unlinking the file for a repository: %w", err)
	}
	if err := s.fill(ctx, sp, body); err != nil {
		sp.close()
		return nil, err
	}
	sp.index.sort()
	return sp, nil
}

// carReader reads sections and counts bytes.
type carReader struct {
	in    *bufio.Reader
	left  int64 // bytes that may yet come
	taken int64
}

func (s *spooler) fill(ctx context.Context, sp *spool, body io.Reader) error {
	in := &carReader{in: bufio.NewReaderSize(body, spoolRoom), left: s.limits.Bytes}
	out := bufio.NewWriterSize(sp.file, spoolRoom)
	header, err := in.section(nil, maxHeader)
	if errors.Is(err, io.EOF) {
		return refuse(Truncated, "the CAR is empty")
	}
	if err != nil {
		return err
	}
	if sp.root, err = verify.Root(header); err != nil {
		return refuse(Malformed, "CAR header: %w", err)
	}
	var room []byte
	for at := int64(0); ; {
		section, err := in.section(room, maxSection)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := sp.admit(ctx, section, at, s.limits.Blocks); err != nil {
			return err
		}
		n, err := out.Write(section[verify.CIDLen:])
		if err != nil {
			return fmt.Errorf("writing a repository to a file: %w", err)
		}
		at, room = at+int64(n), section
	}
	sp.size = in.taken
	if err := out.Flush(); err != nil {
		return fmt.Errorf("writing a repository to a file: %w", err)
	}
	return nil
}

// section reads a length and what it is the length of, into room if that suffices.
// It is io.EOF at the end of the CAR.
func (r *carReader) section(room []byte, most int) ([]byte, error) {
	length, err := r.length()
	switch {
	case err != nil:
		return nil, err
	case length == 0:
		return nil, refuse(Malformed, "CAR section without content at %d", r.taken)
	case length > most:
		return nil, refuse(TooLarge, "CAR section of %d bytes at %d, %d are allowed", length, r.taken, most)
	case int64(length) > r.left:
		return nil, errOverlong
	}
	if cap(room) < length {
		room = make([]byte, length, max(length, 64<<10))
	}
	room = room[:length]
	n, err := io.ReadFull(r.in, room)
	r.left, r.taken = r.left-int64(n), r.taken+int64(n)
	if err != nil {
		return nil, r.cut(err)
	}
	return room, nil
}

// length reads an unsigned varint of at most four bytes, which is more than any
// section may have.
func (r *carReader) length() (length int, err error) {
	for shift := 0; shift < 28; shift += 7 {
		if r.left <= 0 {
			_, err := r.in.Peek(1)
			if err == nil {
				err = errOverlong
			}
			return 0, err
		}
		b, err := r.in.ReadByte()
		if errors.Is(err, io.EOF) && shift == 0 {
			return 0, io.EOF
		}
		if err != nil {
			return 0, r.cut(err)
		}
		r.left, r.taken = r.left-1, r.taken+1
		length |= int(b&0x7f) << shift
		if b < 0x80 {
			return length, nil
		}
	}
	return 0, refuse(TooLarge, "the length of a section has more than 28 bits, at %d", r.taken)
}

var errOverlong = refuse(TooLarge, "the CAR is longer than is allowed")

// cut tells a CAR that ends too early from a connection that failed.
func (r *carReader) cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse(Truncated, "the CAR ends inside of a section, after %d bytes", r.taken)
	}
	return &bodyError{after: r.taken, err: err}
}

// bodyError is the connection's, not the content's.
type bodyError struct {
	after int64
	err   error
}

func (e *bodyError) Error() string { return fmt.Sprintf("after %d bytes: %v", e.after, e.err) }
func (e *bodyError) Unwrap() error { return e.err }

// admit notes a section's block, which will be at an offset of the file.
func (sp *spool) admit(ctx context.Context, section []byte, at int64, most int) error {
	if len(section) < verify.CIDLen {
		return refuse(Malformed, "CAR section of %d bytes", len(section))
	}
	if _, err := verify.CID(section[:verify.CIDLen]); err != nil {
		return refuse(Malformed, "CAR section: %w", err)
	}
	if sp.index.blocks >= most {
		return refuse(TooLarge, "more than %d blocks", most)
	}
	if sp.index.blocks == largeAt && !sp.holds {
		if err := sp.large.Acquire(ctx, 1); err != nil {
			return fmt.Errorf("waiting for another large repository: %w", context.Cause(ctx))
		}
		sp.holds = true
	}
	sp.index.add(section[verify.CIDLen-sha256.Size:verify.CIDLen], at, len(section)-verify.CIDLen)
	return nil
}

// get reads a block and checks its hash. The block is good until the next call.
func (sp *spool) get(c cid.Cid) ([]byte, error) {
	offset, length, ok := sp.index.find(digest(c))
	if !ok {
		return nil, refuse(Missing, "block %s did not come", c)
	}
	if cap(sp.room) < length {
		sp.room = make([]byte, max(length, 64<<10))
	}
	block := sp.room[:length]
	if _, err := sp.file.ReadAt(block, offset); err != nil {
		return nil, fmt.Errorf("reading a block from a file: %w", err)
	}
	if sum := sha256.Sum256(block); string(sum[:]) != digest(c) {
		return nil, refuse(Altered, "block %s does not have the content that its CID names", c)
	}
	return block, nil
}

func (sp *spool) close() {
	if sp.holds {
		sp.large.Release(1)
		sp.holds = false
	}
	_ = sp.file.Close() // it is gone either way
}

func asBodyError(err error) (*bodyError, bool) {
	var broken *bodyError
	ok := errors.As(err, &broken)
	return broken, ok
}

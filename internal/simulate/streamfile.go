package simulate

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/layers-pub/layers-appview/internal/record"
)

// The files of a recording, besides framesFile.
const (
	indexFile    = "frames.idx"    // by frame: sequence number, offset, length; big endian
	accountsFile = "accounts.json" // what DID documents need
	truthFile    = "truth.tsv"     // URI and CID of every record an index must hold in the end
)

const indexEntry = 8 + 8 + 4

// Recording is a stream on disk, served without signing or building anything, so
// that a benchmark measures its reader alone. DID documents are as they were at
// the end: commits from before a key rotation do not verify.
type Recording struct {
	log      *frameLog
	accounts map[syntax.DID]recordedAccount
	handles  map[syntax.Handle]syntax.DID
	truth    []recordedRecord
}

type recordedAccount struct {
	DID    syntax.DID    `json:"did"`
	Handle syntax.Handle `json:"handle"`
	Key    string        `json:"publicKeyMultibase"`
}

type recordedRecord struct {
	key record.Key
	cid syntax.CID
}

// Save writes the world's stream so far into a directory as a recording. Where it is
// the directory of [Config], the frames are in it already.
func (w *World) Save(dir string) error {
	truth := w.entries(View{})
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory of the recording: %w", err)
	}
	if filepath.Clean(dir) != filepath.Clean(w.cfg.Dir) {
		if err := writeFile(dir, framesFile, w.log.copyTo); err != nil {
			return err
		}
	}
	if err := writeFile(dir, indexFile, w.log.writeIndex); err != nil {
		return err
	}
	err := writeFile(dir, accountsFile, func(out io.Writer) error {
		accounts := make([]recordedAccount, 0, len(w.order))
		for _, did := range w.order {
			a := w.accounts[did]
			accounts = append(accounts, recordedAccount{did, a.handle, a.key.multibase()})
		}
		return json.NewEncoder(out).Encode(accounts)
	})
	if err != nil {
		return err
	}
	return writeFile(dir, truthFile, func(out io.Writer) error {
		for _, e := range truth {
			if _, err := fmt.Fprintf(out, "%s\t%s\n", e.Key, e.CID); err != nil {
				return err
			}
		}
		return nil
	})
}

func writeFile(dir, name string, content func(io.Writer) error) error {
	file, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	buffered := bufio.NewWriter(file)
	err = errors.Join(content(buffered), buffered.Flush(), file.Close())
	if err != nil {
		return fmt.Errorf("write recording: %s: %w", name, err)
	}
	return nil
}

// copyTo writes the frames that are still sent, as the log's own file has them.
func (l *frameLog) copyTo(out io.Writer) error {
	for seq := int64(0); ; {
		frames, _, err := l.after(seq, batch)
		if err != nil || len(frames) == 0 {
			return err
		}
		for _, f := range frames {
			header := binary.BigEndian.AppendUint64(nil, uint64(f.Seq))
			header = binary.BigEndian.AppendUint32(header, uint32(len(f.Data)))
			if _, err := out.Write(append(header, f.Data...)); err != nil {
				return err
			}
			seq = f.Seq
		}
	}
}

// writeIndex writes where each frame that is still sent stands in the frames' file.
func (l *frameLog) writeIndex(out io.Writer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	offset := int64(0)
	for _, f := range l.frames {
		if f.gone {
			continue
		}
		at := f.offset
		if l.file == nil {
			at = offset + frameHeader
			offset = at + int64(f.size)
		}
		entry := binary.BigEndian.AppendUint64(nil, uint64(f.seq))
		entry = binary.BigEndian.AppendUint64(entry, uint64(at))
		entry = binary.BigEndian.AppendUint32(entry, uint32(f.size))
		if _, err := out.Write(entry); err != nil {
			return err
		}
	}
	return nil
}

// Open opens a recording. Close it in the end.
func Open(dir string) (*Recording, error) {
	r := &Recording{accounts: map[syntax.DID]recordedAccount{}, handles: map[syntax.Handle]syntax.DID{}}
	if err := r.readAccounts(dir); err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	if err := r.readTruth(dir); err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	if err := r.readIndex(dir); err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	return r, nil
}

func (r *Recording) readAccounts(dir string) error {
	raw, err := os.ReadFile(filepath.Join(dir, accountsFile))
	if err != nil {
		return err
	}
	var accounts []recordedAccount
	if err := json.Unmarshal(raw, &accounts); err != nil {
		return fmt.Errorf("%s: %w", accountsFile, err)
	}
	for _, a := range accounts {
		r.accounts[a.DID] = a
		r.handles[a.Handle] = a.DID
	}
	return nil
}

func (r *Recording) readTruth(dir string) error {
	raw, err := os.ReadFile(filepath.Join(dir, truthFile))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(raw)) {
		uri, cid, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		key, err := record.ParseKey(syntax.ATURI(uri))
		if err != nil {
			return fmt.Errorf("%s: %w", truthFile, err)
		}
		r.truth = append(r.truth, recordedRecord{key, syntax.CID(cid)})
	}
	return nil
}

func (r *Recording) readIndex(dir string) error {
	raw, err := os.ReadFile(filepath.Join(dir, indexFile))
	if err != nil {
		return err
	}
	if len(raw)%indexEntry != 0 {
		return fmt.Errorf("%s is cut off", indexFile)
	}
	log := &frameLog{grown: make(chan struct{})}
	for ; len(raw) > 0; raw = raw[indexEntry:] {
		log.frames = append(log.frames, logged{
			seq:    int64(binary.BigEndian.Uint64(raw)),
			offset: int64(binary.BigEndian.Uint64(raw[8:])),
			size:   int(binary.BigEndian.Uint32(raw[16:])),
		})
	}
	if log.file, err = os.Open(filepath.Join(dir, framesFile)); err != nil {
		return err
	}
	r.log = log
	return nil
}

// Close closes the recording's files and ends subscriptions to it.
func (r *Recording) Close() error { return r.log.close() }

// LastSeq is the sequence number of the last event.
func (r *Recording) LastSeq() int64 { return r.log.last() }

// Frames returns up to limit frames that follow seq.
func (r *Recording) Frames(seq int64, limit int) ([]Frame, error) {
	frames, _, err := r.log.after(seq, limit)
	return frames, err
}

// Records yields what an index must hold after the last event, sorted by key.
func (r *Recording) Records() iter.Seq2[record.Key, syntax.CID] {
	return func(yield func(record.Key, syntax.CID) bool) {
		for _, e := range r.truth {
			if !yield(e.key, e.cid) {
				return
			}
		}
	}
}

func (r *Recording) stream() *frameLog { return r.log }

func (r *Recording) document(did syntax.DID, endpoint string) (didDocument, error) {
	a, ok := r.accounts[did]
	if !ok {
		return didDocument{}, fmt.Errorf("%s: %w", did, ErrNoAccount)
	}
	return newDIDDocument(did, a.Handle, a.Key, endpoint), nil
}

func (r *Recording) resolve(handle syntax.Handle) (syntax.DID, error) {
	did, ok := r.handles[handle.Normalize()]
	if !ok {
		return "", fmt.Errorf("%s: %w", handle, ErrNoAccount)
	}
	return did, nil
}

// NewRecordingServer makes a server of the recording: its stream, DID documents and
// handles. It has no repositories.
func NewRecordingServer(r *Recording, cfg ServerConfig) *Server {
	s := newServer(r, cfg)
	s.http.Handler = s.routes(nil)
	return s
}

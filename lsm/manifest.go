package lsm

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"kvd/lsm/vfs"
	"kvd/wal"
)

// manifest appends edits to the manifest in force and starts a new one when it has grown or when
// an append failed: after a failed append nobody knows what the old file holds, so nothing is ever
// appended behind it. Guarded by DB.installing.
type manifest struct {
	fs      vfs.FS
	dir     string
	names   *directory // of dir
	step    int64      // in which it grows ahead of syncs
	remover *remover

	num   uint64
	w     *wal.Writer // nil when the last append failed
	bytes int64       // appended so far
	limit int64       // size at which a new manifest is started
	named bool        // the last edit failed, but may be in force
	stale []uint64    // manifests that failed and that CURRENT may name
}

// manifestBytesMin is the size below which a manifest is never rewritten.
const manifestBytesMin = 1 << 20

// append makes e durable. all returns the state after e, for the case that a new manifest is
// started; its number is drawn before, so that the state knows it to be taken. An error leaves it
// unknown whether e took effect; the next append settles it by a new manifest that states
// everything.
func (m *manifest) append(e *edit, all func() *edit, draw func() uint64) error {
	if m.w == nil || m.bytes > m.limit {
		num := draw()
		return m.restart(all(), num)
	}
	data := e.encode(nil)
	m.bytes += int64(len(data))
	m.named = true
	if err := m.w.Sync(m.w.Append(data)); err != nil {
		m.abandon()
		return err
	}
	return nil
}

func (m *manifest) abandon() {
	if m.w != nil {
		_ = m.w.Close() // it has failed already, or everything in it is superseded
		m.w = nil
	}
}

// restart writes a new manifest of one edit and makes it the one in force.
func (m *manifest) restart(all *edit, num uint64) error {
	old := m.num
	m.abandon()
	m.named = false
	name, mark := manifestName(m.dir, num), m.names.mark()
	w, err := createManifest(m.fs, name, num, m.step)
	if err != nil {
		_ = m.remover.remove(name)
		return err
	}
	data := all.encode(nil)
	if err = w.Sync(w.Append(data)); err == nil {
		err = m.names.sync(mark)
	}
	if err == nil {
		m.named, err = writeCurrent(m.names, num)
	}
	if err != nil {
		_ = w.Close()
		if !m.named {
			_ = m.remover.remove(name)
		} else { // the rename to CURRENT may have happened: the new file must stay
			m.stale = append(m.stale, num)
		}
		return err
	}
	m.num, m.w = num, w
	m.bytes, m.limit = 0, max(manifestBytesMin, 2*int64(len(data)))
	if old != 0 {
		m.stale = append(m.stale, old)
	}
	for _, num := range m.stale {
		_ = m.remover.remove(manifestName(m.dir, num)) // tried again when the directory is opened
	}
	m.stale = nil
	return nil
}

func createManifest(fsys vfs.FS, name string, num uint64, step int64) (*wal.Writer, error) {
	f, err := fsys.Create(name)
	if err != nil {
		return nil, err
	}
	h := wal.Header{Segment: num, Nonce: randomUint64(), PrewriteBytes: step}
	if err := wal.WriteHeader(f, h); err != nil {
		_ = f.Close()
		return nil, err
	}
	return wal.NewWriter(f, h, 0), nil
}

// readManifest replays the edits of the manifest in force. fn gets each of them in order.
func readManifest(fsys vfs.FS, dir string, num uint64, fn func(*edit) error) error {
	name := manifestName(dir, num)
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return &CorruptError{File: name, Offset: -1, Reason: "CURRENT names it, but it is missing"}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	edits := 0
	segment := wal.Segment{Number: num, R: f, Size: size}
	_, err = wal.Recover([]wal.Segment{segment}, 0, func(rec []byte) error {
		edits++
		e, err := decodeEdit(rec)
		if err == nil {
			err = fn(e)
		}
		if errors.Is(err, errEdit) {
			reason := fmt.Sprintf("edit %d: %v", edits, err)
			return &CorruptError{File: name, Offset: -1, Reason: reason}
		}
		return err
	})
	if err == nil && edits == 0 {
		// The first edit is durable before CURRENT names the file: this is no torn tail.
		err = &CorruptError{File: name, Offset: -1, Reason: "holds no edit"}
	}
	return inFile(err, name)
}

// listFiles returns the numbers of the files of one kind, ascending.
func listFiles(fsys vfs.FS, dir string, want fileKind) ([]uint64, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	var nums []uint64
	for _, base := range names {
		if kind, num := parseName(filepath.Base(base)); kind == want {
			nums = append(nums, num)
		}
	}
	return sortedUint(nums), nil
}

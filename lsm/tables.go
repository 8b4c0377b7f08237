package lsm

import (
	"errors"
	"io/fs"

	"kvd/compaction"
	"kvd/lsm/vfs"
	"kvd/sstable"
)

// tableBufferBytes is how much of a table is gathered before it is written: large enough that the
// system call disappears, small enough that a slice of background work stays short.
const tableBufferBytes = 256 << 10

// tableFile writes a file from front to back. The first error stays.
type tableFile struct {
	file vfs.File
	buf  []byte
	off  int64 // where buf belongs
	err  error
}

// Write implements io.Writer for sstable.Writer.
func (f *tableFile) Write(p []byte) (int, error) {
	f.buf = append(f.buf, p...)
	if len(f.buf) >= tableBufferBytes {
		f.flush()
	}
	return len(p), f.err
}

func (f *tableFile) flush() {
	if f.err == nil && len(f.buf) > 0 {
		_, f.err = f.file.WriteAt(f.buf, f.off)
		f.off += int64(len(f.buf))
	}
	f.buf = f.buf[:0]
}

// tableWriter makes one table of the database: file, contents, sync. It is the compaction.Output
// of flushes and compactions.
type tableWriter struct {
	*sstable.Writer
	db   *DB
	name string
	out  tableFile
}

var _ compaction.Output = (*tableWriter)(nil)

// createTable starts a table for level. Tables near the bottom hold most of the data and are
// compressed; the levels above are rewritten soon, and compressing them would be the largest
// single cost of doing so.
func (db *DB) createTable(level int) (*tableWriter, error) {
	num := db.newFileNum()
	w := &tableWriter{db: db, name: tableName(db.dir, num)}
	file, err := db.opts.FS.Create(w.name)
	if err != nil {
		return nil, err
	}
	w.out.file = file
	w.Writer = sstable.NewWriter(&w.out, sstable.WriterOptions{
		Num:              num,
		UID:              db.newUID(),
		BlockBytes:       db.opts.BlockBytes,
		FilterBitsPerKey: db.opts.FilterBitsPerKey,
		Compress:         level >= compaction.NumLevels-2,
	})
	return w, nil
}

// Finish completes the table and makes its contents durable. Its name is durable once the
// directory is synced, which whoever installs it does once for all new tables.
func (w *tableWriter) Finish() (sstable.Meta, error) {
	meta, err := w.Writer.Finish()
	w.out.flush()
	if err == nil {
		err = w.out.err
	}
	if err == nil {
		err = w.out.file.Sync()
	}
	if closeErr := w.out.file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		w.remove()
		return sstable.Meta{}, err
	}
	return meta, nil
}

// Abort gives the table up and removes its file.
func (w *tableWriter) Abort() {
	_ = w.out.file.Close() // its contents do not matter
	w.remove()
}

func (w *tableWriter) remove() {
	if err := w.db.opts.FS.Remove(w.name); err != nil {
		w.db.log.Warn("cannot remove an unfinished table", "file", w.name, "error", err)
	}
}

// openTable opens a table for reading and pins its index and filter.
func (db *DB) openTable(meta *sstable.Meta) (*table, error) {
	t := &table{meta: meta, name: tableName(db.dir, meta.Num)}
	var err error
	t.file, err = db.opts.FS.Open(t.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &CorruptError{File: t.name, Offset: -1, Reason: "the file is missing"}
	}
	if err != nil {
		return nil, err
	}
	size, err := t.file.Size()
	if err == nil && size != int64(meta.Bytes) {
		err = &CorruptError{File: t.name, Offset: size, Reason: "size differs from the manifest's"}
	}
	if err == nil {
		id := sstable.ID{Num: meta.Num, UID: meta.UID}
		t.reader, err = sstable.NewReader(t.file, size, id, db.cache)
	}
	if err != nil {
		_ = t.file.Close() // the first error is the one to tell
		return nil, inFile(err, t.name)
	}
	return t, nil
}

// openTables opens every table that e adds and that is not open yet.
func (db *DB) openTables(e *edit, opened map[uint64]*table) error {
	for _, a := range e.added {
		if opened[a.meta.Num] != nil {
			continue
		}
		t, err := db.openTable(a.meta)
		if err != nil {
			return err
		}
		opened[a.meta.Num] = t
	}
	return nil
}

func (t *table) close() error {
	err := t.reader.Close()
	if closeErr := t.file.Close(); err == nil {
		err = closeErr
	}
	return err
}

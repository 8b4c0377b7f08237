package lsm

import (
	"errors"
	"io/fs"
	"sync"

	"kvd/compaction"
	"kvd/lsm/procs"
	"kvd/lsm/vfs"
	"kvd/sstable"
)

// tableFile writes a file from front to back. sstable.Writer gathers what it writes. The disk
// begins to write while the table is still being made: else all of it is left to the sync at the
// end, and whoever writes beside it, the log above all, waits behind.
type tableFile struct {
	file    vfs.File
	off     int64
	started int64 // below, the disk has been told
}

const startWritingBytes = 1 << 20

// Write implements io.Writer.
func (f *tableFile) Write(p []byte) (int, error) {
	n, err := f.file.WriteAt(p, f.off)
	f.off += int64(n)
	if f.off-f.started >= startWritingBytes {
		f.startWriting()
	}
	return n, err
}

func (f *tableFile) startWriting() {
	vfs.StartWriting(f.file, f.started, f.off-f.started)
	f.started = f.off
}

// tableWriter makes one table of the database: file, contents, sync. It is the compaction.Output
// of flushes and compactions.
type tableWriter struct {
	*sstable.Writer
	db  *DB
	num uint64
	out tableFile
}

var _ compaction.Output = (*tableWriter)(nil)

// createTable starts a table for level.
func (db *DB) createTable(level int) (*tableWriter, error) {
	num := db.beginTable()
	w := &tableWriter{db: db, num: num}
	file, err := db.opts.FS.Create(tableName(db.dir, num))
	if err != nil {
		w.remove()
		return nil, err
	}
	w.out.file = file
	w.Writer = db.writers.get()
	w.Reset(&w.out, sstable.WriterOptions{
		Num:              num,
		UID:              db.newUID(),
		BlockBytes:       db.opts.BlockBytes,
		FilterBitsPerKey: db.opts.FilterBitsPerKey,
		Compress:         db.compresses(level),
	})
	return w, nil
}

func (db *DB) compresses(level int) bool {
	sizes := db.state.Load().version.levels.Sizes()
	return db.opts.Compaction.Compress(&sizes, level)
}

// Finish completes the table and has the disk begin to write what is left of it.
func (w *tableWriter) Finish() (sstable.Meta, error) {
	meta, err := w.Writer.Finish()
	if err != nil {
		return sstable.Meta{}, err
	}
	w.out.startWriting()
	w.db.writers.put(w.Writer)
	w.Writer = nil // used by the next table
	return meta, nil
}

// Sync makes the contents of a finished table durable. Its name is durable once the directory is
// synced, which whoever installs it does once for all new tables.
func (w *tableWriter) Sync() error {
	err := w.out.file.Sync()
	if closeErr := w.out.file.Close(); err == nil {
		err = closeErr
	}
	w.out.file = nil
	return err
}

// Abort gives the table up and removes its file.
func (w *tableWriter) Abort() {
	if w.out.file != nil {
		_ = w.out.file.Close() // its contents do not matter
	}
	w.remove()
}

func (w *tableWriter) remove() { w.db.removeMade(w.num) }

// writerPool keeps table writers, which hold some megabytes of buffers, one for each goroutine that
// merges and one for the flush. A sync.Pool forgets them with every second cycle of the collector,
// and the buffers that grew anew were half of the garbage that made it run.
type writerPool struct {
	mu    sync.Mutex
	spare []*sstable.Writer
}

func (p *writerPool) get() *sstable.Writer {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.spare)
	if n == 0 {
		return new(sstable.Writer)
	}
	w := p.spare[n-1]
	p.spare = p.spare[:n-1]
	return w
}

func (p *writerPool) put(w *sstable.Writer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.spare) <= compaction.WorkersMax(procs.All()) {
		p.spare = append(p.spare, w)
	}
}

// empty lets go of the spare writers.
func (p *writerPool) empty() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spare = nil
}

// beginTable returns the number of a table about to be made. Drawing it and noting it are one step
// under mu: Check takes the file of a table that is neither noted nor listed for a forgotten one.
// The note goes when a version lists the table, or after the file.
func (db *DB) beginTable() uint64 {
	db.mu.Lock()
	defer db.mu.Unlock()
	num := db.newFileNum()
	db.making[num] = struct{}{}
	return num
}

// removeMade removes the file of a table that was begun in vain.
func (db *DB) removeMade(num uint64) {
	name := tableName(db.dir, num)
	if err := db.remover.remove(name); err != nil {
		db.log.Warn("cannot remove a table", "file", name, "error", err)
	}
	db.mu.Lock()
	delete(db.making, num)
	db.mu.Unlock()
}

// openTable opens a table for reading and pins its index and filter.
func (db *DB) openTable(meta *sstable.Meta) (*table, error) {
	t := &table{meta: meta, name: tableName(db.dir, meta.Num), db: db}
	t.mark.made(db)
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

// openTables opens every one of the tables that is not open yet.
func (db *DB) openTables(added []leveledTable, opened map[uint64]*table) error {
	for _, a := range added {
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

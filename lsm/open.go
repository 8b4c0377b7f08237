package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"kvd/compaction"
	"kvd/lsm/procs"
	"kvd/lsm/vfs"
	"kvd/sstable"
	"kvd/wal"
)

// Open opens the database in dir, making it if there is none. It fails with ErrLocked when
// another process has it open, with ErrFormat when the directory is of another format, with a
// *CorruptError when acknowledged data is damaged: then nothing has been changed. ErrDiskFull says
// that recovery needs room; nothing is lost, and Open succeeds once there is some.
func Open(dir string, o Options) (*DB, error) {
	o = o.withDefaults()
	db := &DB{
		dir:    dir,
		opts:   o,
		log:    o.Logger,
		picker: compaction.NewPicker(o.Compaction),
		busy:   make(map[uint64]bool),
		merges: make(map[*merge]struct{}),
		older:  make(map[*readState]struct{}),
		making: make(map[uint64]struct{}),
		done:   make(chan struct{}),

		damaged: make(map[uint64]string),
	}
	db.scrub.requests = make(chan *scrubRequest)
	db.cache = sstable.NewCache(o.CacheBytes)
	db.readers = db.cache.Readers()
	db.work.L = &db.mu
	db.arenas.bytes = o.MemtableBytes
	db.pace.epoch = time.Now()
	db.behind.init()
	db.remover.fs = o.FS
	db.names = &directory{fs: o.FS, dir: dir}
	db.segments = segments{fs: o.FS, dir: dir, names: db.names, fileNum: db.newFileNum,
		step: o.prewriteBytes()}
	db.manifest = manifest{fs: o.FS, dir: dir, names: db.names, step: o.prewriteBytes()}
	db.segments.remover, db.manifest.remover = &db.remover, &db.remover
	db.fileNum.Store(1)
	db.ctx, db.cancel = context.WithCancel(context.Background())
	if err := db.acquireDir(); err != nil {
		db.cache.Close()
		return nil, err
	}
	if err := db.recover(); err != nil {
		db.abandonOpen()
		if diskFull(err) {
			err = fmt.Errorf("%w: %w", ErrDiskFull, err)
		}
		return nil, err
	}
	return db, nil
}

// acquireDir makes the directory and takes its lock.
func (db *DB) acquireDir() error {
	fsys := db.opts.FS
	// A directory with CURRENT was made durable before that was written.
	_, err := fsys.Size(filepath.Join(db.dir, currentName))
	switch {
	case err == nil || errors.Is(err, fs.ErrNotExist) && db.opts.ReadOnly:
	case errors.Is(err, fs.ErrNotExist):
		if err := makeDir(fsys, db.dir); err != nil {
			return fmt.Errorf("lsm: make the data directory: %w", err)
		}
	default:
		return fmt.Errorf("lsm: look into %s: %w", db.dir, err)
	}
	if db.opts.ReadOnly {
		db.lock, err = lockToRead(fsys, db.dir)
	} else if db.lock, err = fsys.Lock(filepath.Join(db.dir, lockName)); err != nil {
		err = fmt.Errorf("lock %s: %w", db.dir, err)
	}
	if err != nil {
		return fmt.Errorf("lsm: %w", err)
	}
	return nil
}

// lockToRead takes the lock of a database that is only read, if there is one: taking a missing one
// would make the file, and who has the database open has made it. One that cannot be taken without
// a right to write keeps nobody from reading.
func lockToRead(fsys vfs.FS, dir string) (io.Closer, error) {
	name := filepath.Join(dir, lockName)
	if _, err := fsys.Size(name); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	lock, err := fsys.Lock(name)
	if err == nil || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return lock, nil
	}
	return nil, fmt.Errorf("lock %s: %w", dir, err)
}

// makeDir makes a directory and the parents it lacks, durably. When it fails it takes back what it
// made: a sync that failed may have lost the name of the directory, and only if the name is made
// again does the next one cover it.
func makeDir(fsys vfs.FS, dir string) (err error) {
	lacks := []string(nil) // deepest first
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := fsys.List(at); !errors.Is(err, fs.ErrNotExist) {
			break // there, or for MkdirAll to say what is wrong
		}
		lacks = append(lacks, at)
	}
	if err = fsys.MkdirAll(dir); err == nil {
		err = fsys.SyncDir(filepath.Dir(dir)) // even if it was there: nobody may have done so
	}
	for i := 1; i < len(lacks) && err == nil; i++ {
		err = fsys.SyncDir(filepath.Dir(lacks[i]))
	}
	for i := 0; i < len(lacks) && err != nil; i++ {
		_ = fsys.Remove(lacks[i]) // the first error is the one to tell
	}
	return err
}

// abandonOpen gives back what a failed Open has taken.
func (db *DB) abandonOpen() {
	db.cancel()
	db.manifest.abandon()
	_ = db.segments.close() // the error that made Open fail is the one to tell
	if s := db.state.Load(); s != nil {
		for _, tables := range s.version.tables {
			for _, t := range tables {
				_ = t.close()
			}
		}
	}
	if m := db.commit.mem; m != nil {
		m.arena.free() // there are no readers
	}
	db.arenas.empty()
	db.cache.Close()
	if db.lock != nil {
		_ = db.lock.Close()
	}
}

// recover brings the database to the state of the manifest and the log and starts it.
func (db *DB) recover() error {
	names, err := db.opts.FS.List(db.dir)
	if err != nil {
		return err
	}
	for _, base := range names {
		// What a crash left behind has a number too.
		_, num := parseName(base)
		db.fileNum.Store(max(db.fileNum.Load(), num+1))
	}
	num, err := readCurrent(db.opts.FS, db.dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = db.create(names)
	} else if err == nil {
		err = db.load(num)
	}
	if err != nil {
		return err
	}
	db.segments.log = db.databaseID
	r, err := db.replay()
	if err != nil {
		return err
	}
	if db.opts.ReadOnly {
		return db.startReadOnly(r.full)
	}
	return db.start(r.added)
}

// create starts an empty database. A directory with data but without CURRENT is not empty: it has
// lost a file.
func (db *DB) create(names []string) error {
	if data := dataAmong(names); data != "" {
		return missingCurrent(db.dir, data)
	}
	if db.opts.ReadOnly {
		return fmt.Errorf("lsm: no database in %s: %w", db.dir, fs.ErrNotExist)
	}
	db.databaseID = randomUint64()
	v := &version{}
	db.setVersion(v)
	whole := func() *edit { return db.wholeEdit(v, &edit{}) }
	return db.manifest.append(nil, whole, db.newFileNum)
}

// load reads the manifest in force and opens all tables.
func (db *DB) load(num uint64) error {
	db.fileNum.Store(max(db.fileNum.Load(), num+1))
	db.manifest.num = num // rewritten at the first edit: one that was replayed is not appended to
	var m manifestState
	if err := readManifest(db.opts.FS, db.dir, num, m.apply); err != nil {
		return err
	}
	db.databaseID, db.lastSeq = m.databaseID, m.lastSeq
	db.logSegment, db.logStart, db.logEnd = m.logSegment, m.logStart, m.logEnd
	db.fileNum.Store(max(db.fileNum.Load(), m.nextFile))
	for num := range m.tables {
		db.fileNum.Store(max(db.fileNum.Load(), num+1))
	}
	all := &edit{added: m.whole().added}
	return db.openVersion(all, manifestName(db.dir, num))
}

func (db *DB) openVersion(all *edit, manifest string) error {
	opened := make(map[uint64]*table)
	err := db.openTables(all.added, opened)
	var v *version
	if err == nil {
		v, err = (&version{}).with(all, opened)
		if err == nil {
			err = v.levels.Check()
		}
		if err != nil {
			err = &CorruptError{File: manifest, Offset: -1, Reason: err.Error()}
		}
	}
	if err != nil {
		db.dropOpened(&version{}, opened)
		return err
	}
	db.setVersion(v)
	return nil
}

// setVersion makes v current while nobody else knows of the DB.
func (db *DB) setVersion(v *version) {
	db.mu.Lock()
	defer db.mu.Unlock()
	m := db.commit.mem
	if m == nil {
		m = new(memtable)
		a, _ := newArena(memtableBytesMin, 0) // small ones are on the heap and do not fail
		m.init(a, nil)
		db.commit.mem = m
	}
	db.setStateLocked(m, db.frozen, v)
}

// start makes the replayed tables part of the tree, begins a new log and starts the background
// work. From the edit on the old log is not needed.
func (db *DB) start(added []leveledTable) error {
	next, err := db.segments.take()
	if err != nil {
		db.removeTables(added)
		return err
	}
	mem, err := db.newMemtable(db.opts.MemtableBytes-firstOffset*8, 0)
	if err != nil {
		_ = next.file.Close() // nothing was written
		db.removeTables(added)
		return err
	}
	mem.segment, mem.start = next.num, db.logStart
	db.mu.Lock()
	db.commit.mem = mem
	db.setStateLocked(mem, nil, db.state.Load().version)
	db.mu.Unlock()
	e := &edit{
		logSegment: mem.segment, logStart: mem.start, lastSeq: db.commit.lastSeq, added: added,
	}
	if err := db.install(e, nil); err != nil {
		_ = next.file.Close() // nothing was written
		return err
	}
	// Not before: a writer that is closed seals its log, and vouches for all that comes before.
	db.wal.Store(wal.NewWriter(next.file, next.header, mem.start))
	db.removeObsolete()
	db.scrub.pass.Store(1)
	db.idle = time.AfterFunc(idleAfter, db.trimMemory)
	db.mu.Lock()
	db.calm.timer = time.AfterFunc(calmAfter, db.lookForCalm)
	db.repaceLocked()
	db.mu.Unlock()
	compactors := compaction.WorkersMax(procs.All())
	db.loops.Add(4 + compactors)
	go db.cleanLoop()
	go db.behindLoop()
	go db.flushLoop()
	go db.scrubLoop()
	for range compactors {
		go db.compactLoop()
	}
	return nil
}

// startReadOnly serves what is there.
func (db *DB) startReadOnly(frozen []*memtable) error {
	db.failure.Store(&failure{err: fmt.Errorf("%w: opened so", ErrReadOnly)})
	for _, m := range append(frozen, db.commit.mem) {
		m.full.Store(true)
	}
	db.mu.Lock()
	db.frozen = frozen
	db.setStateLocked(db.commit.mem, frozen, db.state.Load().version)
	db.mu.Unlock()
	db.loops.Add(1)
	go db.cleanLoop()
	return nil
}

// removeObsolete removes what no edit refers to: tables of flushes and compactions that a crash
// cut short, replayed logs, older manifests, temporary files.
func (db *DB) removeObsolete() {
	names, err := db.opts.FS.List(db.dir)
	if err != nil {
		db.log.Warn("cannot list the data directory", "error", err)
		return
	}
	live := make(map[uint64]bool)
	for _, tables := range db.state.Load().version.tables {
		for _, t := range tables {
			live[t.meta.Num] = true
		}
	}
	for _, base := range names {
		kind, num := parseName(base)
		err := error(nil)
		switch {
		case kind == fileLog && num < db.logSegment,
			// Not reused: a crash amid a rename can leave one file under two names, and then the
			// second reuse would overwrite the log in use.
			kind == fileTable && !live[num], kind == fileTemp,
			kind == fileManifest && num != db.manifest.num:
			err = db.remover.remove(filepath.Join(db.dir, base))
		}
		if err != nil {
			db.log.Warn("cannot remove an obsolete file", "file", base, "error", err)
		}
	}
}

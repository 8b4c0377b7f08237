package lsm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kvd/lsm/vfs"
)

// TestVerdictOnEachFailure pins, for each operation that promises depend on and each class of
// error, which state the database is in while the operation fails, and that it ends by itself, or does
// not, when the fault is gone: the same whether the operation failed once or for a minute. A state
// that passes must not be made final by its lasting, and one that is final must not be tried again.
func TestVerdictOnEachFailure(t *testing.T) {
	const (
		healthy   = "healthy"
		suspended = "writes suspended"
		full      = "disk full"
		final     = "read only"
	)
	on := func(op vfs.OpKind, class faultClass) func(vfs.Op) bool {
		return func(o vfs.Op) bool { return o.Kind == op && faultClassOf(o.Name) == class }
	}
	logFrame := func(o vfs.Op) bool { // the file keeps the name that it was created under
		return o.Kind == vfs.OpWriteAt && strings.Contains(o.Name, logSuffix) && o.Off > 0
	}
	logHeader := func(o vfs.Op) bool {
		return o.Kind == vfs.OpWriteAt && strings.Contains(o.Name, logSuffix) && o.Off == 0
	}
	newLog := func(o vfs.Op) bool { // a new file, or one that is used again
		return o.Kind == vfs.OpCreate && strings.Contains(o.Name, logSuffix) ||
			o.Kind == vfs.OpRename && faultClassOf(o.Name) == classLog
	}
	logSync := func(n int) func(vfs.Op) bool { // the first n are of the header of a new segment
		return func(o vfs.Op) bool {
			is := o.Kind == vfs.OpSync && strings.Contains(o.Name, logSuffix)
			if is {
				n--
			}
			return is && n < 0
		}
	}
	put := func(db *DB) error { return db.Put([]byte("k"), []byte("w"), Sync) }
	flush := func(db *DB) error { return db.Flush() }
	again := func(db *DB) error { // the first flushes have logs ready
		err := db.Flush()
		for range segmentsReady {
			err = errors.Join(err, db.Put([]byte("new"), nil, NoSync), db.Flush())
		}
		return err
	}
	roll := func(db *DB) error {
		db.installing.Lock()
		db.manifest.limit = 0 // a new one at the next edit
		db.installing.Unlock()
		return db.Flush()
	}
	compact := func(db *DB) error { return db.Compact(context.Background(), nil, nil) }
	get := func(db *DB) error { _, err := db.Get([]byte("old")); return err }

	for _, c := range []struct {
		name string
		fail func(vfs.Op) bool
		do   func(*DB) error
		err  error
		// While it fails and nobody writes: a log that was full is replaced at once, and that a
		// manifest has no room hits nobody before the next flush.
		want string
		then string // when it does not any more
	}{
		{"write the log", logFrame, put, syscall.EIO, final, final},
		{"write the log", logFrame, put, syscall.ENOSPC, healthy, healthy},
		{"write the log", logFrame, put, syscall.EDQUOT, healthy, healthy},
		{"write the log, half", logFrame, put, vfs.ShortWrite(9, syscall.EIO), final, final},
		{"write the log, half", logFrame, put, vfs.ShortWrite(9, syscall.ENOSPC), healthy, healthy},
		{"sync the log", logSync(0), put, syscall.EIO, final, final},
		{"sync the log", logSync(0), put, syscall.ENOSPC, full, healthy},
		{"sync the log, lost", logSync(0), put, vfs.LostSync(syscall.EIO), final, final},
		{"sync the log, lost", logSync(0), put, vfs.LostSync(syscall.ENOSPC), full, healthy},
		{"sync the log, evicted", logSync(0), put, vfs.EvictedSync(syscall.EIO), final, final},
		{"create a log", newLog, again, syscall.EIO, suspended, healthy},
		{"create a log", newLog, again, syscall.EMFILE, suspended, healthy},
		{"create a log", newLog, again, syscall.ENOSPC, full, healthy},
		{"write a log's header", logHeader, again, syscall.EIO, suspended, healthy},
		{"sync a log's header", on(vfs.OpSync, classTemp), again, syscall.EIO, suspended, healthy},
		{"name a log", on(vfs.OpRename, classTemp), again, syscall.EIO, suspended, healthy},
		{"sync the directory", on(vfs.OpSyncDir, classDir), again, syscall.EIO, suspended, healthy},
		{"sync the directory", on(vfs.OpSyncDir, classDir), again, syscall.ENOSPC, full, healthy},
		{"sync the directory, lost", on(vfs.OpSyncDir, classDir), again,
			vfs.LostSync(syscall.EIO), suspended, healthy},
		{"create a table", on(vfs.OpCreate, classTable), flush, syscall.EMFILE, suspended, healthy},
		{"create a table", on(vfs.OpCreate, classTable), flush, syscall.ENOSPC, full, healthy},
		{"create a table", on(vfs.OpCreate, classTable), flush, syscall.EROFS, suspended, healthy},
		{"write a table", on(vfs.OpWriteAt, classTable), flush, syscall.EIO, suspended, healthy},
		{"write a table", on(vfs.OpWriteAt, classTable), flush, syscall.ENOSPC, full, healthy},
		{"sync a table", on(vfs.OpSync, classTable), flush, syscall.EIO, suspended, healthy},
		{"sync a table, lost", on(vfs.OpSync, classTable), flush,
			vfs.LostSync(syscall.EIO), suspended, healthy},
		{"close a table", on(vfs.OpClose, classTable), flush, syscall.EIO, suspended, healthy},
		{"open a table", on(vfs.OpOpen, classTable), flush, syscall.EMFILE, suspended, healthy},
		{"read a table's index", on(vfs.OpReadAt, classTable), flush, syscall.EIO, suspended, healthy},
		{"remove a table", on(vfs.OpRemove, classTable), compact, syscall.EIO, healthy, healthy},
		{"read a table", on(vfs.OpReadAt, classTable), get, syscall.EIO, healthy, healthy},
		{"compact: create", on(vfs.OpCreate, classTable), compactOnly, syscall.EIO, healthy, healthy},
		{"compact: write", on(vfs.OpWriteAt, classTable), compactOnly, syscall.ENOSPC, healthy, healthy},
		{"compact: sync", on(vfs.OpSync, classTable), compactOnly, syscall.EIO, healthy, healthy},
		{"compact: read", on(vfs.OpReadAt, classTable), compactOnly, syscall.EIO, healthy, healthy},
		{"compact: edit", on(vfs.OpSync, classManifest), compactOnly, syscall.EIO, final, final},
		{"compact: edit", on(vfs.OpSync, classManifest), compactOnly, syscall.ENOSPC, healthy, healthy},
		{"write the manifest", on(vfs.OpWriteAt, classManifest), flush, syscall.EIO, final, final},
		{"write the manifest", on(vfs.OpWriteAt, classManifest), flush, syscall.ENOSPC, full, healthy},
		{"sync the manifest", on(vfs.OpSync, classManifest), flush, syscall.EIO, final, final},
		{"sync the manifest", on(vfs.OpSync, classManifest), flush, syscall.ENOSPC, full, healthy},
		{"sync the manifest, lost", on(vfs.OpSync, classManifest), flush,
			vfs.LostSync(syscall.EIO), final, final},
		{"create a manifest", on(vfs.OpCreate, classManifest), roll, syscall.EMFILE, suspended, healthy},
		{"sync a new manifest", on(vfs.OpSync, classManifest), roll, syscall.EIO, suspended, healthy},
		{"write CURRENT", on(vfs.OpRename, classTemp), roll, syscall.ENOSPC, full, healthy},
	} {
		for _, forever := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v/forever=%v", c.name, c.err, forever), func(t *testing.T) {
				failed := 0
				fsys := newFailingFS(func(o vfs.Op) error {
					if (failed > 0 && !forever) || !c.fail(o) {
						return nil
					}
					failed++
					return c.err
				})
				synctest.Test(t, func(t *testing.T) { testState(t, fsys, c.do, forever, c.want, c.then, c.err) })
				if failed == 0 {
					t.Error("the operation did not come")
				}
			})
		}
	}
}

// badVerdict says what is wrong with how a failure is told: as what it is, and with its cause.
func badVerdict(err error, want, then string, cause error) string {
	final := errors.Is(err, ErrReadOnly)
	full := errors.Is(cause, syscall.ENOSPC) || errors.Is(cause, syscall.EDQUOT)
	kinds := 0
	for _, kind := range []error{ErrReadOnly, ErrDiskFull, ErrSuspended} {
		if errors.Is(err, kind) {
			kinds++
		}
	}
	var errno syscall.Errno
	switch {
	case err == nil: // the background met it, or it is of no consequence
		if then != "healthy" {
			return "a final failure is not told"
		}
	case !errors.As(cause, &errno) || !errors.Is(err, errno):
		return "the cause is missing"
	case kinds > 1:
		return "as several things at once"
	case final != (then != "healthy"):
		return "passing is not final"
	case errors.Is(err, ErrDiskFull) && !full, errors.Is(err, ErrSuspended) && full:
		return "a full disk is a full disk"
	case kinds == 0 && want != "healthy":
		return "without a state"
	}
	return ""
}

// compactOnly compacts what is in tables.
func compactOnly(db *DB) error {
	db.commit.Lock() // nothing to flush
	empty := db.commit.mem.entries == 0
	db.commit.Unlock()
	if !empty {
		return errors.New("the test is to compact only")
	}
	return db.Compact(context.Background(), nil, nil)
}

func testState(
	t *testing.T, fsys *failingFS, do func(*DB) error, forever bool, want, then string, cause error,
) {
	o := roomyOptions(fsys)
	o.CacheBytes = -1
	o.Compaction.LevelZeroTrigger = 100 // compactions by hand only
	db := mustOpen(t, "data", o)
	acked := "" // the last value of "k" that was acknowledged
	for range 3 {
		err := errors.Join(db.Put([]byte("old"), []byte("v"), Sync), db.Flush())
		if err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(t.Name(), "compact:") {
		acked = "none"
	} else if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
		t.Fatal(err)
	} else {
		acked = "v"
	}
	state := func() string { return strings.TrimPrefix(db.Metrics().State, "lsm: ") }
	synctest.Wait() // no log is being made ready, whose sync would be the one that fails
	fsys.armed.Store(true)
	err := do(db)
	if bad := badVerdict(err, want, then, cause); bad != "" {
		t.Errorf("told as %v: %s", err, bad)
	}
	if err == nil && acked == "v" {
		if v, _ := db.Get([]byte("k")); string(v) == "w" {
			acked = "w"
		}
	}
	if forever {
		time.Sleep(time.Minute)
	}
	time.Sleep(time.Second) // the cleaner may sleep until a reader has left
	synctest.Wait()
	if s := state(); forever && !strings.HasPrefix(s, want) {
		t.Errorf("while it fails: %s; want %s", s, want)
	}
	readsFail := fsys.matches(vfs.Op{Kind: vfs.OpReadAt, Name: tableName("data", 1)}) != nil
	if v, err := db.Get([]byte("old")); !readsFail && (err != nil || string(v) != "v") {
		t.Errorf("reads do not go on: %q, %v", v, err)
	}
	fsys.armed.Store(false)
	time.Sleep(5 * time.Second)
	if s := state(); !strings.HasPrefix(s, then) {
		t.Errorf("after it failed: %s; want %s", s, then)
	}
	for _, d := range []Durability{Sync, Async, NoSync} {
		err := db.Put([]byte("new"), []byte("v"), d)
		if (err == nil) != (then == "healthy") || err != nil && !errors.Is(err, ErrReadOnly) {
			t.Errorf("then Put: %v, in the state %s", err, then)
		}
	}
	if err := db.Check(); err != nil {
		t.Error(err)
	}
	crashed := fsys.mem.Crash(nil, vfs.KeepNone)
	if err := db.Close(); (err == nil) != (then == "healthy") {
		t.Errorf("Close: %v, in the state %s", err, then)
	}
	for name, disk := range map[string]*vfs.Mem{"a crash": crashed, "Close": fsys.mem} {
		o.FS = disk
		db := mustOpen(t, "data", o)
		v, err := db.Get([]byte("k"))
		if err != nil && acked != "none" || acked == "w" && string(v) != "w" {
			t.Errorf("after %s: %q, %v, but %s was acknowledged", name, v, err, acked)
		}
		mustClose(t, db)
	}
}

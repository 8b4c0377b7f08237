package lsm

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kvd/lsm/vfs"
)

// The sync of the directory that failed was another one's, and took the names of everybody with it:
// a log segment counted as durable whose name was lost.
func TestNamesLostBesideAnotherSync(t *testing.T) {
	mem := vfs.NewMem()
	fail := false
	fsys := vfs.NewFault(mem, func(o vfs.Op) error {
		if fail && o.Kind == vfs.OpSyncDir {
			fail = false
			return vfs.LostSync(syscall.EIO)
		}
		return nil
	})
	if err := errors.Join(fsys.MkdirAll("d"), fsys.SyncDir(".")); err != nil {
		t.Fatal(err)
	}
	d := &directory{fs: fsys, dir: "d"}
	makeName := func(name string) directoryMark {
		mark := d.mark()
		f, err := fsys.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		return mark
	}
	mine, other := makeName("d/mine"), makeName("d/other")
	fail = true
	if err := d.sync(other); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if err := d.sync(mine); !errors.Is(err, errNamesLost) {
		t.Fatalf("a name that was lost counts as durable: %v", err)
	}
	mine = makeName("d/again")
	if err := d.sync(mine); err != nil {
		t.Fatal(err)
	}
	names, err := mem.Crash(nil, vfs.KeepNone).List("d")
	if err != nil || strings.Join(names, " ") != "again" {
		t.Errorf("%v, %v", names, err)
	}
}

// The first attempt to make a directory failed to sync its parent. The second found the directory
// there, and its sync succeeded without covering the name: a loss of power took everything.
func TestDirectoryOfFailedAttemptIsMadeAgain(t *testing.T) {
	mem := vfs.NewMem()
	var fail, opened atomic.Bool
	fsys := vfs.NewFault(mem, func(o vfs.Op) error {
		// Only the directories of the checkpoint, once the database is open: it syncs its own in the
		// background.
		mine := !opened.Load() || !strings.HasPrefix(o.Name, "a")
		if o.Kind == vfs.OpSyncDir && mine && fail.CompareAndSwap(true, false) {
			return vfs.LostSync(syscall.EIO)
		}
		return nil
	})
	fail.Store(true)
	if _, err := Open("a/data", tinyOptions(fsys)); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	db := mustOpen(t, "a/data", tinyOptions(fsys))
	if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
		t.Fatal(err)
	}
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	opened.Store(true)
	fail.Store(true)
	if err := db.Checkpoint("b/copy"); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if err := db.Checkpoint("b/copy"); err != nil {
		t.Fatal(err)
	}
	crashed := mem.Crash(nil, vfs.KeepNone)
	mustClose(t, db)
	for _, dir := range []string{"a/data", "b/copy"} {
		db := mustOpen(t, dir, tinyOptions(crashed))
		if v, err := db.Get([]byte("k")); err != nil || string(v) != "v" {
			t.Errorf("%s after a crash: %q, %v", dir, v, err)
		}
		mustClose(t, db)
	}
}

// A new manifest that could not be created, for want of file handles say, made the database read
// only, although the old one was in force and nothing in doubt.
func TestManifestThatCannotStartIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fail atomic.Bool
		fsys := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
			if o.Kind == vfs.OpCreate && strings.Contains(o.Name, manifestPrefix) &&
				fail.CompareAndSwap(true, false) {
				return syscall.EMFILE
			}
			return nil
		})
		db := mustOpen(t, "data", tinyOptions(fsys))
		defer mustClose(t, db)
		if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
			t.Fatal(err)
		}
		db.installing.Lock()
		db.manifest.limit = 0 // a new one at the next edit
		db.installing.Unlock()
		fail.Store(true)
		if err := db.Flush(); !errors.Is(err, syscall.EMFILE) || !errors.Is(err, ErrSuspended) {
			t.Fatalf("Flush: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := db.Put([]byte("k"), []byte("w"), Sync); err != nil {
			t.Fatal(err)
		}
	})
}

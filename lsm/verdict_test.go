package lsm

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kvd/lsm/vfs"
)

// TestVerdictOnEachFailure has one kind of operation fail and asks for the verdict. A write or sync
// of the log or the manifest that failed is final, also when the disk is well again: a later
// success says nothing of what failed. Whatever can be tried again is, and heals when the fault is
// gone. Neither is told as the other.
func TestVerdictOnEachFailure(t *testing.T) {
	const log, table = logSuffix + tempSuffix, tableSuffix // the name that a file was made with
	header := func(o vfs.Op) bool {                        // of a segment that is being made
		return o.Kind == vfs.OpWriteAt && o.Off == 0 && strings.HasSuffix(o.Name, log)
	}
	for _, c := range []struct {
		kind  vfs.OpKind
		file  string
		errno syscall.Errno
		want  error
	}{
		{vfs.OpSync, log, syscall.EIO, ErrReadOnly},
		{vfs.OpSync, log, syscall.ENOSPC, ErrDiskFull},
		{vfs.OpWriteAt, log, syscall.EIO, ErrReadOnly},
		{vfs.OpWriteAt, log, syscall.ENOSPC, ErrDiskFull},
		{vfs.OpWriteAt, log, syscall.EDQUOT, ErrDiskFull},
		{vfs.OpSync, manifestPrefix, syscall.EIO, ErrReadOnly},
		{vfs.OpWriteAt, manifestPrefix, syscall.EIO, ErrReadOnly},
		{vfs.OpWriteAt, manifestPrefix, syscall.ENOSPC, ErrDiskFull},
		{vfs.OpRename, log, syscall.EIO, ErrSuspended},
		{vfs.OpRename, log, syscall.ENOSPC, ErrDiskFull},
		{vfs.OpCreate, table, syscall.EMFILE, ErrSuspended},
		{vfs.OpWriteAt, table, syscall.EIO, ErrSuspended},
		{vfs.OpWriteAt, table, syscall.ENOSPC, ErrDiskFull},
		{vfs.OpSync, table, syscall.EIO, ErrSuspended},
		{vfs.OpOpen, table, syscall.EMFILE, ErrSuspended},
	} {
		t.Run(fmt.Sprintf("%v %s %v", c.kind, strings.Trim(c.file, ".-"), c.errno), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var broken atomic.Bool
				mem := vfs.NewMem()
				db := mustOpen(t, "data", roomyOptions(vfs.NewFault(mem, func(o vfs.Op) error {
					if broken.Load() && o.Kind == c.kind && strings.Contains(o.Name, c.file) && !header(o) {
						return c.errno
					}
					return nil
				})))
				acked := 0
				put := func() (err error) {
					if err = db.Put(fmt.Appendf(nil, "k%05d", acked), nil, Sync); err == nil {
						acked++
					}
					return err
				}
				if err := errors.Join(put(), db.Flush(), put()); err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // a segment may be prepared meanwhile
				broken.Store(true)
				var err error
				for i := 0; i < 10 && err == nil; i++ {
					if err = put(); err == nil {
						err = db.Flush()
					}
				}
				final := errors.Is(c.want, ErrReadOnly)
				if !errors.Is(err, c.want) || !errors.Is(err, c.errno) {
					t.Fatalf("told as %v, want %v", err, c.want)
				}
				s := db.Metrics().State // what passes may have passed already
				if !strings.HasPrefix(s, c.want.Error()) && (final || s != "healthy") {
					t.Errorf("State is %q, want %v", s, c.want)
				}
				broken.Store(false)
				time.Sleep(3 * time.Second)
				if err := put(); final != (err != nil) || final && !errors.Is(err, ErrReadOnly) {
					t.Errorf("3 s after the fault is gone: %v", err)
				}
				if _, err := db.Get([]byte("k00000")); err != nil {
					t.Errorf("a read: %v", err)
				}
				if err := db.Close(); final != (err != nil) {
					t.Errorf("Close: %v", err)
				}
				db = mustOpen(t, "data", roomyOptions(mem))
				for i := range acked {
					if _, err := db.Get(fmt.Appendf(nil, "k%05d", i)); err != nil {
						t.Errorf("write %d of %d: %v", i, acked, err)
					}
				}
				mustClose(t, db)
			})
		})
	}
}

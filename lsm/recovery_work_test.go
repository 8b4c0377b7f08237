package lsm

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"kvd/lsm/vfs"
)

// recoveryWork is what an Open does to the disk.
type recoveryWork struct {
	ops, logRead, tableRead, written atomic.Int64
}

func (w *recoveryWork) count(o vfs.Op) error {
	w.ops.Add(1)
	switch {
	case o.Kind == vfs.OpWriteAt:
		w.written.Add(o.Len)
	case o.Kind == vfs.OpReadAt && strings.HasSuffix(o.Name, logSuffix):
		w.logRead.Add(o.Len)
	case o.Kind == vfs.OpReadAt && strings.HasSuffix(o.Name, tableSuffix):
		w.tableRead.Add(o.Len)
	}
	return nil
}

// TestRecoveryWorkIsBoundedByTheLog counts what an Open after a crash reads, writes and calls, for
// small and large trees and short and long logs: the log is read a few times at most and written
// once as tables, of each table only index and filter are read, and no more than that.
func TestRecoveryWorkIsBoundedByTheLog(t *testing.T) {
	o := Options{MemtableBytes: 64 << 10, CacheBytes: -1}
	o.Compaction.LevelZeroTrigger = 1 << 20 // none, so that the work is that of the recovery
	value := []byte(strings.Repeat("v", 400))
	for _, tables := range []int{0, 4, 40} {
		for _, entries := range []int{0, 50, 500} {
			t.Run(fmt.Sprintf("%d tables, %d entries", tables, entries), func(t *testing.T) {
				mem := vfs.NewMem()
				o.FS = mem
				db := mustOpen(t, "data", o)
				put := func(n int) {
					for i := range n {
						if err := db.Put(fmt.Appendf(nil, "key%05d", i*7919%20000), value, NoSync); err != nil {
							t.Fatal(err)
						}
					}
				}
				for range tables {
					put(100)
					if err := db.Flush(); err != nil {
						t.Fatal(err)
					}
				}
				put(entries)
				if err := db.Apply(new(Batch), Sync); err != nil {
					t.Fatal(err)
				}
				disk := mem.Crash(nil, vfs.KeepNone)
				mustClose(t, db)

				logs, err := listFiles(disk, "data", fileLog)
				if err != nil {
					t.Fatal(err)
				}
				logBytes, tableBytes, tableFiles := int64(0), int64(0), int64(0)
				for _, num := range logs {
					size, _ := disk.Size(logName("data", num))
					logBytes += size
				}
				nums, _ := listFiles(disk, "data", fileTable)
				for _, num := range nums {
					size, _ := disk.Size(tableName("data", num))
					tableBytes += size
					tableFiles++
				}
				var work recoveryWork
				o.FS = vfs.NewFault(disk, work.count)
				db = mustOpen(t, "data", o)
				ops, written := work.ops.Load(), work.written.Load()
				logRead, tableRead := work.logRead.Load(), work.tableRead.Load()
				mustClose(t, db)
				t.Logf("%d operations; of %d bytes of log %d read; of %d bytes in %d tables %d; %d written",
					ops, logBytes, logRead, tableBytes, tableFiles, tableRead, written)
				made := logBytes/o.MemtableBytes + 1 // tables of what was replayed
				if limit := 60 + 12*(tableFiles+made) + 12*int64(len(logs)); ops > limit {
					t.Errorf("%d operations, more than %d", ops, limit)
				}
				if limit := 4 * logBytes; logRead > limit {
					t.Errorf("%d bytes of the log read, more than %d", logRead, limit)
				}
				if limit := 4096*(tableFiles+made) + (tableBytes+logBytes)/8; tableRead > limit {
					t.Errorf("%d bytes of tables read, more than %d", tableRead, limit)
				}
				// The manifest lists every table, and both it and the log begin with some zeros.
				if limit := 2*logBytes + 512*(tableFiles+made) + 256<<10; written > limit {
					t.Errorf("%d bytes written, more than %d", written, limit)
				}
				if least := int64(min(entries, 50)) * 400; logBytes < least {
					t.Errorf("the log has %d bytes, not the %d that are in no table", logBytes, least)
				}
			})
		}
	}
}

package lsm

import (
	"io"
	"log/slog"
	"time"

	"kvd/compaction"
	"kvd/lsm/vfs"
)

// Limits of one pair and one batch. A write outside them gets a typed error before anything is
// written.
const (
	MaxKeyBytes   = 64 << 10
	MaxValueBytes = 8 << 20
	MaxBatchBytes = 64 << 20 // encoded size of one Batch
)

// Durability says, at each write, when the write is acknowledged. The zero value is the safest.
type Durability uint8

const (
	// Sync acknowledges when the log is fdatasync'ed up to the record: survives power loss.
	// Callers that overlap share one sync.
	Sync Durability = iota
	// Async acknowledges when the operating system has the record: survives the death of the
	// process. Concurrent callers share one write. A loss of power may take everything since the
	// last Sync, Flush or flush of a memtable, however long ago that was: an empty Apply with Sync
	// bounds it.
	Async
	// NoSync acknowledges when the record is in the log buffer, which is written behind within
	// 5 ms: survives a clean Close. The death of the process may take the last milliseconds, a loss
	// of power as much as of Async. Order and atomicity are kept in every case.
	NoSync
)

// Options are the parts and settings of a DB. The zero value works.
type Options struct {
	// FS is where the files live. Nil means the operating system's file system.
	FS vfs.FS
	// Logger receives what an operator wants to know: recovery, background errors. Nil discards.
	Logger *slog.Logger
	// MemtableBytes is the size of one memtable, at most 16 GiB, without its index, an eighth more.
	// Up to three hold writes that are not in tables yet; while writes go on, the memory of two
	// more is kept for reuse. 0 means 64 MiB.
	MemtableBytes int64
	// CacheBytes is the budget for data blocks kept in memory. 0 means 64 MiB, negative no cache.
	CacheBytes int64
	// BlockBytes is the target size of a data block before compression. 0 means 4096.
	BlockBytes int
	// FilterBitsPerKey sizes the bloom filters. 0 means 10 (1 % false positives), negative none.
	FilterBitsPerKey int
	// Compaction shapes the tree. Its zero value means the defaults written there.
	Compaction compaction.Config
	// ScrubPeriod is the time within which every file is read from the disk and checked, over and
	// over, in the background; see DB.Scrub for doing so at once. It bounds for how long damage on
	// the disk goes unnoticed, if reading for a quarter of the time is enough, and the database
	// stays open for as long: one that is opened anew more often reads each file once in a period
	// on average. 0 means 7 days, negative never. A database that is opened ReadOnly does not do
	// it.
	ScrubPeriod time.Duration
	// ReadOnly opens without changing a file: writes fail with ErrReadOnly, the log is replayed
	// into memory, nothing is flushed or compacted. It takes the lock for itself all the same: with
	// a database that is open elsewhere, to write or to read, Open fails with ErrLocked. Open a
	// Checkpoint of it instead.
	ReadOnly bool
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.OS
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.MemtableBytes == 0 {
		o.MemtableBytes = 64 << 20
	}
	o.MemtableBytes = min(max(o.MemtableBytes, memtableBytesMin), memtableBytesMax)
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if o.BlockBytes == 0 {
		o.BlockBytes = 4096
	}
	if o.FilterBitsPerKey == 0 {
		o.FilterBitsPerKey = 10
	}
	if o.ScrubPeriod == 0 {
		o.ScrubPeriod = 7 * 24 * time.Hour
	}
	return o
}

// prewriteBytes is the step in which log and manifest grow ahead of syncs: 1 MiB, and less where
// memtables of a few KiB switch the log long before that.
func (o Options) prewriteBytes() int64 {
	const page = 4096
	return min(max(o.MemtableBytes/4/page*page, 4*page), 1<<20)
}

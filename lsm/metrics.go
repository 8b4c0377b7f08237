package lsm

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"kvd/compaction"
	"kvd/sstable"
	"kvd/wal"
)

// Metrics is the state of a DB at one moment. Counters run from Open.
type Metrics struct {
	Levels [compaction.NumLevels]LevelMetrics

	MemtableBytes   int64 // of the memtable being filled
	MemtablesFrozen int   // waiting for their flush
	Sequence        uint64
	Snapshots       int

	Log   wal.Metrics
	Cache sstable.CacheMetrics

	FlushedBytes          uint64 // tables written by flushes
	Compactions           uint64
	CompactionMoves       uint64 // of these, tables that changed level without being rewritten
	CompactionsRunning    int
	CompactedReadBytes    uint64
	CompactedWrittenBytes uint64
	CompactionDebtBytes   uint64 // estimate of what compactions have left to do

	Stalls    uint64        // times that a commit waited for a flush
	StallTime time.Duration // all of them
	PaceTime  time.Duration // sum of the delays that slow writers down smoothly

	Scrub        ScrubMetrics
	Corruptions  uint64   // tables in which a read met damage, and compactions that did
	Damaged      int      // damaged tables: no compaction uses them, reads of what is bad fail
	DamagedFiles []string // the first 20 of them
	State        string   // "healthy", or why writes are refused
}

// ScrubMetrics is what the scrub has done since Open.
type ScrubMetrics struct {
	Passes   uint64        // in which every file was read
	LastPass time.Duration // how long the last one took
	Bytes    uint64        // read
	Damages  uint64        // damaged places found; once in each pass until they are gone
	Healed   uint64        // of these, healed
	// BytesLeft is about what the pass under way has still to read, of BytesTotal.
	BytesLeft, BytesTotal int64
}

// damagedFilesMax bounds Metrics.DamagedFiles.
const damagedFilesMax = 20

// LevelMetrics describes one level of the tree.
type LevelMetrics struct {
	Tables  int
	Bytes   uint64
	Entries uint64
}

// counters are what a DB counts.
type counters struct {
	stalls, stallNanos              atomic.Int64
	flushed                         atomic.Uint64
	compactions, moves              atomic.Uint64
	compactedRead, compactedWritten atomic.Uint64
	corruptions                     atomic.Uint64
}

// Metrics returns the state of the DB. After Close it is zero but for State.
func (db *DB) Metrics() Metrics {
	m := Metrics{State: "healthy"}
	if f := db.failure.Load(); f != nil {
		m.State = f.err.Error()
	}
	if db.hold() != nil {
		return m
	}
	defer db.drop()
	s := db.acquireState()
	defer db.releaseState(s)
	sizes := s.version.levels.Sizes()
	for level, tables := range s.version.levels {
		l := &m.Levels[level]
		l.Tables, l.Bytes = len(tables), sizes[level]
		for _, t := range tables {
			l.Entries += t.Entries
		}
	}
	m.CompactionDebtBytes = db.opts.Compaction.Debt(&sizes, float64(len(s.version.levels[0])))
	m.Sequence = uint64(db.published.seq())
	if w := db.wal.Load(); w != nil {
		m.Log = w.Metrics()
	}
	if db.cache != nil {
		m.Cache = db.cache.Metrics()
	}
	m.MemtableBytes = int64(len(s.mem.arena.bytes))
	if db.commit.TryLock() { // else it may be held for as long as a flush takes: it is full
		m.MemtableBytes = db.commit.mem.used
		db.commit.Unlock()
	}
	db.mu.Lock()
	m.MemtablesFrozen, m.Snapshots = len(db.frozen), len(db.snapshots)
	m.CompactionsRunning = db.jobs
	m.Damaged = len(db.damaged)
	m.DamagedFiles = slices.Sorted(maps.Values(db.damaged))
	m.DamagedFiles = m.DamagedFiles[:min(len(m.DamagedFiles), damagedFilesMax)]
	db.mu.Unlock()
	c := &db.counters
	m.FlushedBytes, m.Compactions = c.flushed.Load(), c.compactions.Load()
	m.CompactionMoves = c.moves.Load()
	m.CompactedReadBytes = c.compactedRead.Load()
	m.CompactedWrittenBytes = c.compactedWritten.Load()
	m.Stalls, m.StallTime = uint64(c.stalls.Load()), time.Duration(c.stallNanos.Load())
	m.PaceTime = time.Duration(db.pace.waited.Load())
	m.Corruptions = c.corruptions.Load()
	m.Scrub = db.scrubMetrics()
	return m
}

func (db *DB) scrubMetrics() ScrubMetrics {
	s := &db.scrub
	m := ScrubMetrics{
		Passes:   s.passes.Load(),
		LastPass: time.Duration(s.lastPass.Load()),
		Bytes:    s.bytes.Load(),
		Damages:  s.damages.Load(),
		Healed:   s.healed.Load(),
	}
	if db.opts.ReadOnly {
		return m
	}
	pass := s.pass.Load()
	for _, it := range db.scrubItems() {
		m.BytesTotal += it.bytes
		if it.mark.pass.Load() < pass {
			m.BytesLeft += it.bytes
		}
	}
	return m
}

// WriteAmplification is the bytes written to tables for each byte flushed; 0 before a flush.
func (m *Metrics) WriteAmplification() float64 {
	if m.FlushedBytes == 0 {
		return 0
	}
	return float64(m.FlushedBytes+m.CompactedWrittenBytes) / float64(m.FlushedBytes)
}

// String draws the tree, one line a level.
func (m Metrics) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "level  tables      bytes     entries\n")
	for level, l := range m.Levels {
		if l.Tables > 0 {
			fmt.Fprintf(&b, "%5d  %6d  %9s  %10d\n",
				level, l.Tables, sizeText(l.Bytes), l.Entries)
		}
	}
	fmt.Fprintf(&b, "memtable %s, %d frozen; write amplification %.1f, debt %s\n",
		sizeText(uint64(m.MemtableBytes)), m.MemtablesFrozen, m.WriteAmplification(),
		sizeText(m.CompactionDebtBytes))
	fmt.Fprintf(&b, "state: %s\n", m.State)
	return b.String()
}

func sizeText(bytes uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(bytes), 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"
)

// config says what to run. It travels to the child processes as JSON.
type config struct {
	Engine        string
	Round         int
	Keys          int
	ValueBytes    int
	CacheBytes    int64
	MemtableBytes int64
	Rows          selection
	Cell          time.Duration // of rows that run for a time
	Cap           time.Duration // after which a row that runs by count is cut off
	Dir           string
	Seed          uint64
	Pretouch      int64 // not zero: touch so much memory and run no engine
	Large         bool  // the rows of a tree larger than memory instead of the ordinary ones
	Scale         bool  // the rows of one size of a tree that grows
	Sustain       time.Duration
	Pace          float64      // writes per second of a paced writer
	Limit         int64        // bytes of memory a session may use; 0: no limit
	Group         *memoryGroup `json:",omitempty"` // what limits it
}

// session is one engine in one round: it runs in a process of its own.
type session struct {
	config
	*data
	engine *engine
	emit   func(record)
	base   settings
}

func newSession(c config) (*session, error) {
	e, err := engineNamed(c.Engine)
	if err != nil {
		return nil, err
	}
	d, err := newData(c)
	if err != nil {
		return nil, err
	}
	s := &session{config: c, data: d, engine: e}
	s.base = settings{
		Class: e.loadClass(), CacheBytes: c.CacheBytes, MemtableBytes: c.MemtableBytes, Writers: 1,
	}
	return s, nil
}

// wants reports whether any of the rows was asked for and makes sense in this engine.
func (s *session) wants(names ...string) bool {
	for _, n := range names {
		if s.Rows.has(n) && s.engine.row(n) {
			return true
		}
	}
	return false
}

// show emits a row if it was asked for.
func (s *session) show(name string, value float64) {
	if s.wants(name) {
		s.emit(record{Name: name, Value: value})
	}
}

// showRate emits a row that ran here, with what it cost.
func (s *session) showRate(name string, o outcome) {
	if s.wants(name) {
		share := o.used.collectorPercent()
		s.emit(record{Name: name, Value: o.rate(), CPU: o.cpuMicros(), GC: share})
	}
}

func (s *session) fact(name string, value float64) { s.emit(record{Name: name, Value: value}) }

// note says something that the reader of the table must know.
func (s *session) note(format string, a ...any) {
	s.emit(record{Note: fmt.Sprintf(format, a...)})
}

// runStore runs all rows on an engine of this process. Each stage has a fresh directory.
func runStore(s *session, open opener) error {
	stages := []func(opener) error{
		s.stageSequential, s.stageSystem, s.stageWriters, s.stageTree, s.stageSynced,
		s.stageSustained,
	}
	switch {
	case s.Large:
		stages = []func(opener) error{s.stageLarge}
	case s.Scale:
		stages = []func(opener) error{s.stageScale}
	}
	for _, stage := range stages {
		debug.FreeOSMemory() // what an earlier stage left is no part of this one
		if err := stage(open); err != nil {
			return err
		}
	}
	s.fact(factCollector, usedNow().collectorPercent())
	return nil
}

// fresh runs fn on a new store in an empty directory and removes it.
func (s *session) fresh(open opener, o settings, name string,
	fn func(t store, dir string) error,
) error {
	dir := filepath.Join(s.Dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	t, err := open(dir, o)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if err := fn(t, dir); err != nil {
		_ = t.Close() // the first error is the one to tell
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("%s: close: %w", name, err)
	}
	return nil
}

func (s *session) stageSequential(open opener) error {
	if !s.wants(rowFillSeq) {
		return nil
	}
	return s.fresh(open, s.base, "sequential", func(t store, _ string) error {
		o, err := s.write(t, 1, s.ascending(), 1, s.Cap)
		if err != nil {
			return err
		}
		s.showRate(rowFillSeq, o)
		return s.verify(t, s.ascending(), o.ops, 1, 1)
	})
}

// stageSystem loads in the class that survives kill -9, where that is another one.
func (s *session) stageSystem(open opener) error {
	_, has := s.engine.acks[system]
	if !s.wants(rowFillSystem) || !has || s.base.Class == system {
		return nil
	}
	o := s.base
	o.Class = system
	return s.fresh(open, o, "system", func(t store, _ string) error {
		o, err := s.write(t, 1, s.shuffled(), 1, s.Cap)
		if err != nil {
			return err
		}
		s.showRate(rowFillSystem, o)
		return s.verify(t, s.shuffled(), o.ops, 1, 1)
	})
}

func (s *session) stageWriters(open opener) error {
	if !s.wants(rowManyWriters) {
		return nil
	}
	o := s.base
	o.Writers = 16
	return s.fresh(open, o, "writers", func(t store, _ string) error {
		o, err := s.write(t, 16, s.shuffled(), 1, s.Cap)
		if err != nil {
			return err
		}
		s.showRate(rowManyWriters, o)
		if o.ops < s.keys {
			return nil
		}
		return s.verify(t, s.shuffled(), o.ops, 1, 1)
	})
}

func (s *session) stageSynced(open opener) error {
	cells := []struct {
		row     string
		writers int
	}{{rowSyncOne, 1}, {rowSyncSixteen, 16}, {rowSyncMany, 256}}
	for _, c := range cells {
		if !s.wants(c.row) {
			continue
		}
		o := s.base
		o.Class, o.Writers = synced, c.writers
		err := s.fresh(open, o, c.row, func(t store, _ string) error {
			out, err := s.writeFor(t, c.writers, 1, s.Cell)
			s.showRate(c.row, out)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// stageTree loads in random order and reads what came of it, before and after full compaction,
// then overwrites it, reads beside a writer, closes, opens and looks once more.
func (s *session) stageTree(open opener) error {
	low, top := uint64(1), uint64(1)
	fn := func(t store, dir string) error {
		if err := s.load(t, dir); err != nil {
			return err
		}
		if err := s.readTree(t, leftRows); err != nil {
			return err
		}
		if s.wants(compactedRows.all()...) {
			if err := s.compact(t, dir, quietMax); err != nil {
				return err
			}
			if err := s.readTree(t, compactedRows); err != nil {
				return err
			}
		}
		s.fact(factRSS, residentMegabytes())
		var err error
		low, top, err = s.changeTree(t)
		return err
	}
	if !s.wants(slices.Concat(leftRows.all(), compactedRows.all(), besideNames(),
		[]string{rowFillRandom, rowFillQuiet, rowOverwrite})...) {
		return nil
	}
	// The directory outlives the first store: the second one opens it again.
	dir := filepath.Join(s.Dir, "tree")
	defer os.RemoveAll(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, fn := range []func(t store, dir string) error{fn, func(t store, _ string) error {
		return s.verify(t, s.shuffled(), s.keys, low, top)
	}} {
		t, err := open(dir, s.base)
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		if err := fn(t, dir); err != nil {
			_ = t.Close() // the first error is the one to tell
			return fmt.Errorf("tree: %w", err)
		}
		if err := t.Close(); err != nil {
			return fmt.Errorf("tree: close: %w", err)
		}
	}
	return nil
}

func (s *session) load(t store, dir string) error {
	o, err := s.write(t, 1, s.shuffled(), 1, s.Cap)
	if err != nil {
		return err
	}
	s.showRate(rowFillRandom, o)
	if s.base.Class == system {
		s.showRate(rowFillSystem, o)
	}
	if o.ops < s.keys {
		s.note("fillrandom was cut off after %v, the rest was loaded in bulk", s.Cap)
		if err := s.rest(t, s.shuffled(), 1, o.ops); err != nil {
			return err
		}
	}
	used := usedNow()
	took, ok := settle(dir, quietMax)
	if !ok {
		s.note("still busy %v after the load", took)
	}
	s.fact(factSettle, took.Seconds())
	if o.ops == s.keys {
		s.showRate(rowFillQuiet, outcome{
			o.ops, o.took + took, o.used.plus(usedNow().minus(used)),
		})
	}
	s.fact(factDiskLeft, float64(diskBytes(dir))/1e6)
	return s.verify(t, s.shuffled(), s.keys, 1, 1)
}

func (s *session) compact(t store, dir string, longest time.Duration) error {
	start := time.Now()
	if err := t.Compact(); err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	took, ok := settle(dir, longest)
	if !ok {
		s.note("still busy %v after the full compaction", took)
	}
	s.fact(factCompact, (time.Since(start) - quietWindows*quietWindow).Seconds())
	s.fact(factDiskCompact, float64(diskBytes(dir))/1e6)
	return nil
}

// treeRows are the reading rows of one state of the tree; an empty name is no row.
type treeRows struct{ uniform, zipf, miss, filtered, seek, scan string }

var (
	leftRows      = treeRows{rowReadLeft, rowZipfLeft, rowMissLeft, "", rowSeekLeft, ""}
	compactedRows = treeRows{
		rowReadCompact, rowZipfCompact, rowMissCompact, rowMissLastLevel, rowSeekCompact, rowScan,
	}
)

func (r treeRows) all() []string {
	var names []string
	for _, n := range []string{r.uniform, r.zipf, r.miss, r.filtered, r.seek, r.scan} {
		if n != "" {
			names = append(names, n)
		}
	}
	return names
}

// readers is how many goroutines read in the rows that only read.
const readers = 2

func (s *session) readTree(t store, rows treeRows) error {
	if !s.wants(rows.all()...) {
		return nil
	}
	if err := s.warm(t); err != nil {
		return err
	}
	filtered := t.Get
	if p, ok := t.(*pebbleStore); ok {
		filtered = p.getFiltered
	}
	cells := []struct {
		row     string
		zipfian bool
		op      operation
	}{
		{rows.uniform, false, readUniform},
		{rows.zipf, true, readZipfian},
		{rows.miss, false, missWith(t.Get)},
		{rows.filtered, false, missWith(filtered)},
		{rows.seek, false, seekTen},
	}
	for _, c := range cells {
		if c.row == "" || !s.wants(c.row) {
			continue
		}
		o, err := s.readFor(t, readers, s.Cell, 1, 1, c.zipfian, c.op)
		if err != nil {
			return fmt.Errorf("%s: %w", c.row, err)
		}
		s.showRate(c.row, o)
	}
	if rows.scan == "" || !s.wants(rows.scan) {
		return nil
	}
	return s.scanFor(t, rows.scan)
}

// scanFor repeats the full scan until a cell's time is filled.
func (s *session) scanFor(t store, row string) error {
	var all outcome
	for all.took < s.Cell {
		o, err := s.scanAll(t, readers, 1, 1)
		if err != nil {
			return err
		}
		all.ops += o.ops
		all.took += o.took
		all.used = all.used.plus(o.used)
	}
	s.showRate(row, all)
	return nil
}

// warm brings the tree into the caches: one full scan and a quarter of a cell of random reads.
func (s *session) warm(t store) error {
	if _, err := s.scanAll(t, 1, 1, 1); err != nil {
		return err
	}
	_, err := s.readFor(t, readers, s.Cell/4, 1, 1, false, readUniform)
	return err
}

// changeTree overwrites every key, then reads beside a writer. It returns the versions that values
// may have afterwards.
func (s *session) changeTree(t store) (low, top uint64, err error) {
	low, top = 1, 1
	if s.wants(rowOverwrite) {
		o, err := s.write(t, 1, s.overwriting(), 2, s.Cap)
		if err != nil {
			return 0, 0, err
		}
		s.showRate(rowOverwrite, o)
		top = 2
		if o.ops == s.keys {
			low = 2
		}
	}
	for _, b := range besides(s.Pace) {
		if !s.wants(b.all()...) {
			continue
		}
		if err := t.Settle(); err != nil {
			s.note("before %s: %v", b.reads, err)
		}
		if _, err := s.readFor(t, 1, s.Cell/4, low, top, false, readUniform); err != nil {
			return 0, 0, err
		}
		top++
		reads, writes, latency, err := s.beside(t, 2*s.Cell, low, top, b.pace)
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", b.reads, err)
		}
		s.show(b.reads, reads.rate())
		s.show(b.writes, writes.rate())
		s.show(b.latency, float64(latency.ValueAtQuantile(99))/1e3)
		s.show(b.tail, float64(latency.ValueAtQuantile(99.9))/1e3)
	}
	return low, top, nil
}

// besideRows are the rows of one reader beside one writer.
type besideRows struct {
	reads, writes, latency, tail string
	pace                         float64 // writes per second, 0: full speed
}

func (b besideRows) all() []string { return []string{b.reads, b.writes, b.latency, b.tail} }

func besides(pace float64) []besideRows {
	return []besideRows{
		{rowBesideReads, rowBesideWrites, rowBesideLatency, rowBesideTail, 0},
		{rowPacedReads, rowPacedWrites, rowPacedLatency, rowPacedTail, pace},
	}
}

// besideNames are the names of all rows that read beside a writer.
func besideNames() (names []string) {
	for _, b := range besides(0) {
		names = append(names, b.all()...)
	}
	return names
}

// verify reads a thousand of the first count keys of an order, and as many that do not exist, and
// compares every byte.
func (s *session) verify(t store, o order, count, low, top uint64) error {
	r := s.newReader(t, low, top, 3000)
	miss := missWith(t.Get)
	for range min(count, 1000) {
		r.count = 0 // every one is of the sample
		if err := r.read(t.Get, o(r.random.Uint64N(count))); err != nil {
			return err
		}
		if err := miss(r); err != nil {
			return err
		}
	}
	return nil
}

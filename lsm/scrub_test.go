package lsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kvd/lsm/vfs"
)

// scrubbed is a database with tables, a closed log segment's worth of history and a log, and a
// period of its own, inside a synctest bubble.
type scrubbed struct {
	t    *testing.T
	disk *vfs.Mem
	db   *DB
	want map[string]string
}

const scrubTestPeriod = 24 * time.Hour

func newScrubbed(t *testing.T, fsys func(*vfs.Mem) vfs.FS) *scrubbed {
	t.Helper()
	s := &scrubbed{t: t, disk: vfs.NewMem(), want: map[string]string{}}
	o := tinyOptions(s.disk)
	if fsys != nil {
		o.FS = fsys(s.disk)
	}
	o.CacheBytes = -1
	o.ScrubPeriod = scrubTestPeriod
	s.db = mustOpen(t, "data", o)
	for round := range 3 {
		for i := range 100 {
			s.put(fmt.Sprintf("key%03d", i*(round+1)), fmt.Sprintf("value %d of round %d", i, round))
		}
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.db.Compact(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		s.put(fmt.Sprintf("key%03d", i*7), fmt.Sprintf("in the log %d", i))
	}
	return s
}

func (s *scrubbed) put(key, value string) {
	s.t.Helper()
	if err := s.db.Put([]byte(key), []byte(value), Sync); err != nil {
		s.t.Fatal(err)
	}
	s.want[key] = value
}

// file returns the last file of a kind that the database uses.
func (s *scrubbed) file(kind fileKind) string {
	s.t.Helper()
	switch kind {
	case fileManifest:
		s.db.installing.Lock()
		defer s.db.installing.Unlock()
		return manifestName("data", s.db.manifest.num)
	case fileLog:
		return logName("data", s.db.state.Load().mem.segment)
	case fileTable:
		for _, tables := range s.db.state.Load().version.tables {
			if len(tables) > 0 {
				return tables[0].name
			}
		}
	}
	return filepath.Join("data", currentName)
}

func (s *scrubbed) flip(name string, off int64) {
	s.t.Helper()
	if err := s.disk.FlipByte(name, off, 0x40); err != nil {
		s.t.Fatal(err)
	}
}

// holds demands that a database has what was written.
func (s *scrubbed) holds(what string, db *DB) {
	s.t.Helper()
	for key, value := range s.want {
		if got, err := db.Get([]byte(key)); err != nil || string(got) != value {
			s.t.Fatalf("%s: Get(%s) = %q, %v, want %q", what, key, got, err, value)
		}
	}
}

// survives demands that a loss of power now loses nothing.
func (s *scrubbed) survives(what string) {
	s.t.Helper()
	o := tinyOptions(s.disk.Crash(nil, vfs.KeepNone))
	db, err := Open("data", o)
	if err != nil {
		s.t.Fatalf("%s: after a crash: %v", what, err)
	}
	s.holds(what+": after a crash", db)
	synctest.Wait() // a compaction that waits for Check would stop the clock
	if err := db.Check(); err != nil {
		s.t.Fatalf("%s: after a crash: %v", what, err)
	}
	mustClose(s.t, db)
}

// metrics returns the metrics once the background is idle.
func (s *scrubbed) metrics() Metrics {
	synctest.Wait()
	return s.db.Metrics()
}

// scrubGrace is what may come on top of a period: the plan is made anew 64 times in it.
const scrubGrace = scrubTestPeriod / 32

// TestScrubFindsAndHeals damages each kind of file, in the first and in the last part of it, and
// demands that it is found within a period and healed from what memory has.
func TestScrubFindsAndHeals(t *testing.T) {
	sizeOf := func(s *scrubbed, name string) int64 {
		size, err := s.disk.Size(name)
		if err != nil {
			s.t.Fatal(err)
		}
		return size
	}
	remove := func(s *scrubbed, name string) {
		if err := s.disk.Remove(name); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		kind   fileKind
		damage func(s *scrubbed, name string)
	}{
		{"CURRENT flipped", fileOther, func(s *scrubbed, name string) { s.flip(name, 7) }},
		{"CURRENT missing", fileOther, remove},
		{"CURRENT longer", fileOther, func(s *scrubbed, name string) {
			if err := s.disk.WriteFile(name, []byte("kvd-1 MANIFEST-000001 f37d3bb2\n\n")); err != nil {
				s.t.Fatal(err)
			}
		}},
		{"manifest, first record", fileManifest, func(s *scrubbed, name string) { s.flip(name, 4096+30) }},
		{"manifest header", fileManifest, func(s *scrubbed, name string) {
			s.flip(name, 3)
			s.flip(name, 2048+3)
		}},
		{"manifest missing", fileManifest, remove},
		{"manifest replaced by an older one", fileManifest, func(s *scrubbed, name string) {
			if err := s.disk.WriteFile(name, make([]byte, sizeOf(s, name))); err != nil {
				s.t.Fatal(err)
			}
		}},
		{"log, first record", fileLog, func(s *scrubbed, name string) { s.flip(name, 4096+24) }},
		{"log header", fileLog, func(s *scrubbed, name string) {
			s.flip(name, 3)
			s.flip(name, 2048+3)
		}},
		{"log missing", fileLog, remove},
		{"table footer", fileTable, func(s *scrubbed, name string) { s.flip(name, sizeOf(s, name)-50) }},
		{"table index", fileTable, func(s *scrubbed, name string) { s.flip(name, sizeOf(s, name)-300) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScrubbed(t, nil)
				time.Sleep(scrubTestPeriod / 3)
				name := s.file(c.kind)
				c.damage(s, name)
				time.Sleep(scrubTestPeriod + scrubGrace)
				m := s.metrics()
				if m.Scrub.Damages != 1 || m.Scrub.Healed != 1 || m.Damaged != 0 || m.State != "healthy" {
					t.Errorf("%+v, %d damaged, %s", m.Scrub, m.Damaged, m.State)
				}
				s.survives(c.name)
				s.put("after", "healing")
				s.holds(c.name, s.db)
				time.Sleep(2 * scrubTestPeriod)
				if n := s.metrics().Scrub.Damages; n != 1 {
					t.Errorf("%d damages in the end", n)
				}
				s.survives(c.name + ", later")
				mustClose(t, s.db)
			})
		})
	}
}

// A block that is damaged and not in memory is beyond healing: it is reported in each pass, its
// table is listed and left alone by compactions, reads of it fail, and everything else goes on.
func TestScrubDamagedBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScrubbed(t, nil)
		name := s.file(fileTable)
		s.flip(name, 10)
		time.Sleep(scrubTestPeriod + scrubGrace)
		m := s.metrics()
		if m.Scrub.Damages != 1 || m.Scrub.Healed != 0 || m.Damaged != 1 || m.DamagedFiles[0] != name {
			t.Fatalf("%+v, damaged: %v", m.Scrub, m.DamagedFiles)
		}
		time.Sleep(scrubTestPeriod)
		if m = s.metrics(); m.Scrub.Damages != 2 || m.Damaged != 1 {
			t.Errorf("in the second pass: %+v, damaged: %v", m.Scrub, m.DamagedFiles)
		}
		if err := s.db.Compact(t.Context(), nil, nil); !errors.Is(err, errQuarantined) {
			t.Errorf("Compact: %v", err)
		}
		if n := s.metrics().Corruptions; n != 0 {
			t.Errorf("compactions met the damage %d times", n)
		}
		failed := 0
		for key := range s.want {
			if _, err := s.db.Get([]byte(key)); err != nil {
				if !isCorrupt(err) {
					t.Fatalf("Get(%s): %v", key, err)
				}
				failed++
			}
		}
		if failed == 0 || failed > len(s.want)/2 {
			t.Errorf("%d of %d reads fail", failed, len(s.want))
		}
		for i := range 500 { // flushes and compactions of what lies beside
			s.put(fmt.Sprintf("new%04d", i), strings.Repeat("x", 100))
		}
		if err := s.db.Flush(); err != nil {
			t.Error(err)
		}

		report, err := s.db.Scrub(t.Context())
		if err != nil || report.Found != 1 || report.Healed != 0 || len(report.Damages) != 1 {
			t.Errorf("Scrub: %+v, %v", report, err)
		} else if d := report.Damages[0]; d.File != name || d.Offset != 0 || d.Healed {
			t.Errorf("Scrub: %+v", d)
		}
		s.flip(name, 10) // somebody has put it right
		time.Sleep(scrubTestPeriod + scrubGrace)
		if m = s.metrics(); m.Damaged != 0 {
			for _, it := range s.db.scrubItems() {
				t.Log(it.name(s.db), it.bytes, it.read, s.db.uptime())
			}
			t.Errorf("damaged although it reads well: %v", m.DamagedFiles)
		}
		if err := s.db.Compact(t.Context(), nil, nil); err != nil {
			t.Errorf("Compact of what reads well again: %v", err)
		}
		s.holds("in the end", s.db)
		mustClose(t, s.db)
	})
}

// A sector that cannot be read is damage with its own reason, and hides no more than itself. If it
// reads at the second try, the table moves elsewhere.
func TestScrubReadError(t *testing.T) {
	var bad struct {
		sync.Mutex
		name  string
		off   int64
		times int
	}
	inject := func(o vfs.Op) error {
		bad.Lock()
		defer bad.Unlock()
		hit := o.Kind == vfs.OpReadAt && o.Name == bad.name && o.Off <= bad.off && bad.off < o.Off+o.Len
		if !hit || bad.times == 0 {
			return nil
		}
		bad.times--
		return syscall.EIO
	}
	for _, healed := range []uint64{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			s := newScrubbed(t, func(m *vfs.Mem) vfs.FS { return vfs.NewFault(m, inject) })
			bad.Lock()
			bad.name, bad.off, bad.times = s.file(fileTable), 20, 1<<30
			if healed == 1 {
				bad.times = 2 // the step, and the page alone
			}
			bad.Unlock()
			report, err := s.db.Scrub(t.Context())
			if err != nil || report.Found == 0 || report.Damages[0].Reason != "cannot be read: input/output error" {
				t.Errorf("%+v, %v", report, err)
			}
			if m := s.metrics(); m.Scrub.Healed > 0 != (healed > 0) || m.Damaged != int(1-healed) {
				t.Errorf("%+v, damaged: %v", m.Scrub, m.DamagedFiles)
			}
			bad.Lock()
			bad.times = 0
			bad.Unlock()
			s.holds("after read errors", s.db)
			mustClose(t, s.db)
		})
	}
}

// A process without file handles cannot look; that is no damage.
func TestScrubWithoutHandles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var none atomic.Bool
		s := newScrubbed(t, func(m *vfs.Mem) vfs.FS {
			return vfs.NewFault(m, func(o vfs.Op) error {
				if o.Kind == vfs.OpOpen && none.Load() {
					return syscall.EMFILE
				}
				return nil
			})
		})
		none.Store(true)
		time.Sleep(2 * scrubTestPeriod)
		if _, err := s.db.Scrub(t.Context()); !errors.Is(err, syscall.EMFILE) {
			t.Errorf("Scrub: %v", err)
		}
		if m := s.metrics(); m.Scrub.Damages != 0 || m.Scrub.Passes != 0 || m.Damaged != 0 {
			t.Errorf("%+v, damaged: %v", m.Scrub, m.DamagedFiles)
		}
		none.Store(false)
		time.Sleep(scrubTestPeriod + scrubGrace)
		if m := s.metrics(); m.Scrub.Passes == 0 || m.Scrub.Damages != 0 {
			t.Errorf("%+v", m.Scrub)
		}
		mustClose(t, s.db)
	})
}

// TestScrubWithoutManifest: a manifest that cannot be started for once loses nothing. Writes go on,
// and the next scrub heals what this one could not.
func TestScrubWithoutManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var none atomic.Bool
		s := newScrubbed(t, func(m *vfs.Mem) vfs.FS {
			return vfs.NewFault(m, func(o vfs.Op) error {
				if o.Kind == vfs.OpCreate && strings.Contains(o.Name, manifestPrefix) && none.Load() {
					return syscall.EMFILE
				}
				return nil
			})
		})
		s.metrics() // no compaction starts the manifest instead
		s.flip(s.file(fileOther), 7)
		none.Store(true)
		if r, err := s.db.Scrub(t.Context()); err != nil || r.Found != 1 || r.Healed != 0 {
			t.Errorf("%+v, %v", r, err)
		}
		s.put("after", "the failure")
		if _, err := s.db.Scrub(t.Context()); !errors.Is(err, syscall.EMFILE) {
			t.Errorf("the damage is still there, Scrub: %v", err)
		}
		none.Store(false)
		if r, err := s.db.Scrub(t.Context()); err != nil {
			t.Errorf("%+v, %v", r, err)
		}
		s.survives("healed later")
		mustClose(t, s.db)
	})
}

// TestScrubPace reads at an even rate: in no hour much more than its share, and everything in a
// period.
func TestScrubPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var read, ops atomic.Int64
		mem := vfs.NewMem()
		o := Options{FS: vfs.NewFault(mem, func(op vfs.Op) error {
			ops.Add(1)
			if op.Kind == vfs.OpReadAt {
				read.Add(op.Len)
			}
			return nil
		})}
		o.MemtableBytes, o.CacheBytes, o.ScrubPeriod = 4<<20, -1, scrubTestPeriod
		db := mustOpen(t, "data", o)
		r := rand.New(rand.NewPCG(1, 2))
		value := make([]byte, 4<<10)
		for i := range 5000 { // 20 MB that do not compress
			for j := range value {
				value[j] = byte(r.Uint32())
			}
			if err := db.Put(fmt.Appendf(nil, "key%05d", i), value, NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Compact(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		total := db.Metrics().Scrub.BytesTotal
		read.Store(0)
		files := mem.OpenFiles()
		const step = 10 * time.Minute
		share := total / int64(scrubTestPeriod/step)
		for passed := step; passed <= 3*scrubTestPeriod; passed += step {
			before, wakes := read.Load(), ops.Load()
			time.Sleep(step)
			synctest.Wait()
			if n := read.Load() - before; n > 3*share/2+2*scrubStepBytes {
				t.Errorf("at %v: %d bytes in %v, the share is %d", passed, n, step, share)
			}
			if n := ops.Load() - wakes; n > 40 {
				t.Errorf("at %v: %d operations in %v", passed, n, step)
			}
			if refs, open := db.state.Load().refs.Sum(), mem.OpenFiles(); refs != 0 || open != files {
				t.Fatalf("at %v: between two steps %d references to the state are held and %d files "+
					"of %d are open", passed, refs, open, files)
			}
		}
		m := db.Metrics()
		if m.Scrub.Passes < 2 || m.Scrub.Passes > 4 || m.Scrub.Damages != 0 {
			t.Errorf("in 3 periods: %+v", m.Scrub)
		}
		if n := read.Load(); n < 5*total/2 || n > 4*total {
			t.Errorf("read %d bytes in 3 periods of %d", n, total)
		}
		if took := m.Scrub.LastPass; took < scrubTestPeriod*9/10 || took > scrubTestPeriod+scrubGrace {
			t.Errorf("a pass took %v", took)
		}
		count(t, "scrubs", int64(m.Scrub.Passes))
		mustClose(t, db)
	})
}

// A scrub that is off, or of a database that is read only, does nothing and costs no goroutine that
// Close would leave.
func TestScrubOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which fails when a goroutine is left
		s := newScrubbed(t, nil)
		mustClose(t, s.db)
		var ops atomic.Int64
		o := tinyOptions(vfs.NewFault(s.disk, func(vfs.Op) error { ops.Add(1); return nil }))
		o.ScrubPeriod = -1
		s.db = mustOpen(t, "data", o)
		time.Sleep(time.Minute) // what is done to the tree when nobody writes
		synctest.Wait()
		before := ops.Load()
		time.Sleep(365 * 24 * time.Hour)
		if n := ops.Load() - before; n != 0 {
			t.Errorf("%d operations", n)
		}
		report, err := s.db.Scrub(t.Context()) // on request all the same
		if err != nil || report.Files < 3 || report.Bytes == 0 || report.Found != 0 {
			t.Errorf("Scrub: %+v, %v", report, err)
		}
		mustClose(t, s.db)
		o.ReadOnly, o.ScrubPeriod = true, time.Minute
		s.db = mustOpen(t, "data", o)
		before = ops.Load()
		time.Sleep(time.Hour)
		if _, err := s.db.Scrub(t.Context()); !errors.Is(err, ErrReadOnly) || ops.Load() != before {
			t.Errorf("read only: %v, %d operations", err, ops.Load()-before)
		}
		mustClose(t, s.db)
		if _, err := s.db.Scrub(t.Context()); err == nil {
			t.Error("Scrub of a closed database")
		}
	})
}

// Requests end with their context and with the database, and several at a time come in turn.
func TestScrubRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScrubbed(t, nil)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.db.Scrub(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("Scrub: %v", err)
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, err := s.db.Scrub(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if m := s.metrics(); m.Scrub.Passes < 3 {
			t.Errorf("%+v", m.Scrub)
		}
		for range 3 {
			wg.Go(func() {
				for {
					if _, err := s.db.Scrub(context.Background()); err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		for range 100 { // the clock stands still while they run
			runtime.Gosched()
		}
		mustClose(t, s.db)
		wg.Wait()
	})
}

// TestScrubAmidEverything scrubs without a pause while tables come and go, logs are switched and
// files reused. Whatever it calls damage is a false alarm.
func TestScrubAmidEverything(t *testing.T) {
	passes, began := uint64(0), time.Now()
	for seed := uint64(0); ; seed++ {
		passes += scrubAmidEverything(t, seed)
		if t.Failed() || time.Since(began) >= *budget {
			break
		}
	}
	if passes < 10 {
		t.Errorf("only %d passes", passes)
	}
	count(t, "scrubs", int64(passes))
}

func scrubAmidEverything(t *testing.T, seed uint64) uint64 {
	disk := vfs.NewMem()
	o := tinyOptions(disk)
	o.ScrubPeriod = time.Millisecond
	db := mustOpen(t, "data", o)
	rounds := 20000 * defaultModelSeeds / 2000
	var writers, asked sync.WaitGroup
	for w := range 2 {
		writers.Go(func() { churn(t, db, rand.New(rand.NewPCG(seed, uint64(w))), rounds) })
	}
	stop := make(chan struct{})
	asked.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if report, err := db.Scrub(t.Context()); err != nil || report.Found != 0 {
				t.Errorf("seed %d: Scrub: %+v, %v", seed, report, err)
				return
			}
			time.Sleep(time.Millisecond) // the background has its turn
		}
	})
	writers.Wait()
	close(stop)
	asked.Wait()
	m := db.Metrics()
	if m.Scrub.Damages != 0 || m.Damaged != 0 {
		t.Errorf("seed %d: %+v, damaged: %v", seed, m.Scrub, m.DamagedFiles)
	}
	if err := db.Check(); err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
	mustClose(t, db)
	if n := disk.OpenFiles(); n != 0 {
		t.Errorf("seed %d: %d files left open", seed, n)
	}
	return m.Scrub.Passes
}

// churn writes, flushes, compacts and has new manifests made.
func churn(t *testing.T, db *DB, r *rand.Rand, rounds int) {
	for i := range rounds {
		key := fmt.Appendf(nil, "key%05d", r.IntN(3000))
		if err := db.Put(key, bytes.Repeat(key, 1+r.IntN(10)), Durability(r.IntN(3))); err != nil {
			t.Error(err)
			return
		}
		if i%500 == 499 {
			if err := db.Flush(); err != nil {
				t.Error(err)
			}
		}
		if i%2000 == 1999 {
			db.installing.Lock()
			db.manifest.limit = 0 // a new manifest at the next edit
			db.installing.Unlock()
			if err := db.Compact(t.Context(), nil, nil); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestScrubRandomDamage flips a byte of a file in use. A scrub finds it, or nobody needs the byte:
// then a loss of power loses nothing, and neither does one after all was healed. What is not healed
// is a table of which nothing wrong is served.
func TestScrubRandomDamage(t *testing.T) {
	healed, harmless, left, began := 0, 0, 0, time.Now()
	for seed := uint64(0); seed < defaultModelSeeds/20 || time.Since(began) < *budget; seed++ {
		synctest.Test(t, func(t *testing.T) {
			s, r := newScrubbed(t, nil), rand.New(rand.NewPCG(seed, 11))
			files := []string{s.file(fileOther), s.file(fileManifest), s.file(fileLog), s.file(fileTable)}
			name := files[r.IntN(len(files))]
			data, err := s.disk.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			off := r.Int64N(int64(len(bytes.TrimRight(data, "\x00"))))
			if err := s.disk.FlipByte(name, off, 1<<r.IntN(8)); err != nil {
				t.Fatal(err)
			}
			what := fmt.Sprintf("seed %d, byte %d of %s flipped", seed, off, name)
			report, err := s.db.Scrub(t.Context())
			if err != nil || report.Found > 1 {
				t.Fatalf("%s: %+v, %v", what, report, err)
			}
			switch damaged := s.metrics().Damaged; {
			case report.Healed < report.Found:
				left++
				if damaged != 1 || !strings.HasSuffix(name, tableSuffix) {
					t.Fatalf("%s: %d damaged tables, %+v", what, damaged, report)
				}
				for key, value := range s.want {
					if got, err := s.db.Get([]byte(key)); string(got) != value && !isCorrupt(err) {
						t.Fatalf("%s: Get(%s) = %q, %v", what, key, got, err)
					}
				}
			default:
				if healed += report.Healed; report.Found == 0 {
					harmless++
				}
				s.holds(what, s.db)
				s.survives(what)
			}
			mustClose(t, s.db)
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d healed, %d harmless, %d left", healed, harmless, left)
	count(t, "damages", int64(healed+left))
}

func TestScrubRate(t *testing.T) {
	const period = 100 * time.Second
	item := func(bytes int64, read time.Duration) scrubItem {
		return scrubItem{bytes: bytes, read: read * time.Second}
	}
	for _, c := range []struct {
		name  string
		now   time.Duration
		items []scrubItem
		want  float64
	}{
		{"nothing", 0, nil, 0},
		{"all due at the end", 0, []scrubItem{item(100, 0), item(300, 0)}, 4},
		{"halfway through", 50, []scrubItem{item(200, 0), item(100, 10), item(100, 40)}, 5},
		{"the last one is far away", 0, []scrubItem{item(1000, 0), item(1, 90)}, 10},
		{"its neighbours are gone", 90, []scrubItem{item(100, 0)}, 10},
		{"overdue", 500, []scrubItem{item(100, 0)}, 64},
	} {
		if got := scrubRate(c.items, 0, c.now*time.Second, period); got < c.want*0.999 || got > c.want*1.001 {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if got := scrubPause(100, 10); got != 10*time.Second {
		t.Errorf("pause %v", got)
	}
	if got := scrubPause(1, 0); got < 24*time.Hour {
		t.Errorf("pause without a rate: %v", got)
	}
}

// TestScrubEndsWithItsContext: a damaged table that a compaction has is waited for, but not by a
// Scrub whose context has ended.
func TestScrubEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScrubbed(t, nil)
		s.metrics() // no compaction runs
		name := s.file(fileTable)
		_, num := parseName(filepath.Base(name))
		s.flip(name, 5)
		busy := func(is bool) {
			s.db.mu.Lock()
			defer s.db.mu.Unlock()
			s.db.busy[num] = is
			s.db.work.Broadcast()
		}
		busy(true)
		ctx, cancel := context.WithCancel(t.Context())
		ended := false
		go func() {
			_, _ = s.db.Scrub(ctx) // no error if the table was the last file to read
			ended = true
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if !ended {
			t.Error("a cancelled Scrub waits")
		}
		busy(false)
		if r, err := s.db.Scrub(t.Context()); err != nil || r.Found == 0 {
			t.Errorf("the next Scrub: %+v, %v", r, err)
		}
		mustClose(t, s.db)
	})
}

// afterSize calls do once after the size of a log segment was read.
type afterSize struct {
	vfs.FS
	armed atomic.Bool
	do    func()
}

func (a *afterSize) Size(name string) (int64, error) {
	n, err := a.FS.Size(name)
	if strings.HasSuffix(name, logSuffix) && a.armed.Swap(false) {
		a.do()
	}
	return n, err
}

// TestScrubOfGrowingLog: a log that grows after the scrub has looked at its size is not damaged.
func TestScrubOfGrowingLog(t *testing.T) {
	fsys := &afterSize{FS: vfs.NewMem()}
	db := mustOpen(t, "data", Options{FS: fsys, ScrubPeriod: -1})
	defer mustClose(t, db)
	put := func(key string, bytes int) {
		if err := db.Put([]byte(key), make([]byte, bytes), Async); err != nil {
			t.Error(err)
		}
	}
	put("a", 1)
	fsys.do = func() { put("b", 64<<10) }
	fsys.armed.Store(true)
	if r, err := db.Scrub(t.Context()); err != nil || r.Found > 0 || fsys.armed.Load() {
		t.Errorf("%+v, %v", r, err)
	}
}

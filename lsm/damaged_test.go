package lsm

import (
	"bytes"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kvd/lsm/vfs"
)

// readers returns every way to read all keys; each returns an error that it got.
func (s *scrubbed) readers() map[string]func() error {
	one := func(get func([]byte) ([]byte, error)) (err error) {
		for key := range s.want {
			if _, e := get([]byte(key)); e != nil {
				err = e
			}
		}
		return err
	}
	return map[string]func() error{
		"Get": func() error { return one(s.db.Get) },
		"snapshot": func() error {
			snap := s.db.NewSnapshot()
			defer snap.Close()
			return one(snap.Get)
		},
		"iterator": func() error {
			it := s.db.NewIter(IterOptions{})
			for range it.All() {
			}
			return it.Close()
		},
		"iterator backwards": func() error {
			it := s.db.NewIter(IterOptions{})
			for ok := it.Last(); ok; {
				ok = it.Prev()
			}
			return it.Close()
		},
	}
}

// A read that met damage was an error for its caller and nothing else: no line in the log, nothing
// in the metrics, until a scrub came by.
func TestReadReportsDamage(t *testing.T) {
	for _, way := range []string{"Get", "snapshot", "iterator", "iterator backwards"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScrubbed(t, nil)
				var log bytes.Buffer
				s.reopen(s.disk, &log, scrubTestPeriod)
				name := s.file(fileTable)
				s.flip(name, 10)
				for range 3 {
					if err := s.readers()[way](); !isCorrupt(err) {
						t.Fatal(err)
					}
					m := s.metrics()
					if m.Damaged != 1 || m.DamagedFiles[0] != name || m.Corruptions != 1 {
						t.Errorf("%d corruptions, damaged: %v", m.Corruptions, m.DamagedFiles)
					}
					if m.Scrub.Damages != 1 || m.Scrub.Passes != 0 {
						t.Errorf("no scrub of that file: %+v", m.Scrub)
					}
				}
				told := "a read met damage; what is damaged is not served\" file=" + name
				if strings.Count(log.String(), told) != 1 {
					t.Errorf("%q is not logged once:\n%s", told, &log)
				}
				mustClose(t, s.db)
			})
		})
	}
}

// What a read took for damage and the disk has whole is no damage in the end, whatever the period.
func TestReadDamageThatTheScrubDoesNotFind(t *testing.T) {
	for _, period := range []time.Duration{scrubTestPeriod, -1} {
		synctest.Test(t, func(t *testing.T) {
			s := newScrubbed(t, nil)
			name, flipped := s.file(fileTable), atomic.Bool{}
			right := func(o vfs.Op) error { // once the scrub looks
				if o.Kind == vfs.OpOpen && o.Name == name && flipped.CompareAndSwap(true, false) {
					s.flip(name, 10)
				}
				return nil
			}
			var log bytes.Buffer
			s.reopen(vfs.NewFault(s.disk, right), &log, period)
			s.flip(name, 10)
			flipped.Store(true)
			if err := s.readers()["Get"](); !isCorrupt(err) {
				t.Fatal(err)
			}
			m := s.metrics()
			if m.Damaged != 0 || m.Corruptions != 1 || m.Scrub.Damages != 0 {
				t.Errorf("%d corruptions, damaged: %v", m.Corruptions, m.DamagedFiles)
			}
			if flipped.Load() || !strings.Contains(log.String(), "reads well again") {
				t.Errorf("the scrub has not looked:\n%s", &log)
			}
			s.holds("in the end", s.db)
			mustClose(t, s.db)
		})
	}
}

// Damage in a table that only an iterator needs is told and not listed.
func TestReadDamageOfAReplacedTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScrubbed(t, nil)
		it := s.db.NewIter(IterOptions{}) // keeps its tables
		old := s.db.state.Load().version
		s.put("key000", "newer")
		if err := s.db.Compact(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		met := 0
		for _, tables := range old.tables {
			for _, table := range tables {
				if !s.db.state.Load().has(table) {
					met++
					s.flip(table.name, 10)
				}
			}
		}
		for range it.All() {
		}
		if err := it.Err(); met == 0 || !isCorrupt(err) {
			t.Fatalf("%d tables of the iterator are replaced; %v", met, err)
		}
		if m := s.metrics(); m.Damaged != 0 || m.Corruptions != 1 || m.Scrub.Damages != 0 {
			t.Errorf("%d corruptions, damaged: %v", m.Corruptions, m.DamagedFiles)
		}
		_ = it.Close() // the error from before
		s.holds("in the end", s.db)
		mustClose(t, s.db)
	})
}

// A table that a compaction replaces after a read has met damage in it is on no list any more.
func TestReadDamageGoesWithItsTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScrubbed(t, nil)
		var armed atomic.Bool
		var listed atomic.Int32
		amid := func(o vfs.Op) error {
			if o.Kind != vfs.OpCreate || !strings.HasSuffix(o.Name, tableSuffix) || !armed.Load() ||
				listed.Load() > 0 {
				return nil
			}
			for _, it := range s.db.scrubItems() {
				s.db.mu.Lock()
				merged := it.table != nil && s.db.busy[it.table.meta.Num]
				s.db.mu.Unlock()
				if merged && s.db.quarantine(it.table, &CorruptError{File: it.table.name}) {
					listed.Add(1)
				}
			}
			return nil
		}
		s.reopen(vfs.NewFault(s.disk, amid), new(bytes.Buffer), scrubTestPeriod)
		armed.Store(true) // for whichever merge comes: one may begin by itself
		s.put("key000", "newer")
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := s.db.Compact(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		if m := s.metrics(); listed.Load() == 0 || m.Damaged != 0 {
			t.Errorf("%d tables were damaged, these are: %v", listed.Load(), m.DamagedFiles)
		}
		mustClose(t, s.db)
	})
}

// A database that is opened to read only lists the damage that reads meet, and mends nothing.
func TestReadDamageReadOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which fails when a goroutine is left
		s := newScrubbed(t, nil)
		name := s.file(fileTable)
		mustClose(t, s.db)
		o := tinyOptions(s.disk)
		o.CacheBytes, o.ReadOnly = -1, true
		s.db = mustOpen(t, "data", o)
		s.flip(name, 10)
		if err := s.readers()["Get"](); !isCorrupt(err) {
			t.Fatal(err)
		}
		if m := s.metrics(); m.Damaged != 1 || m.Corruptions != 1 || m.Scrub.Damages != 0 {
			t.Errorf("%d corruptions, damaged: %v", m.Corruptions, m.DamagedFiles)
		}
		mustClose(t, s.db)
	})
}

// reopen has the database log to log and read its files through fsys.
func (s *scrubbed) reopen(fsys vfs.FS, log *bytes.Buffer, period time.Duration) {
	s.t.Helper()
	mustClose(s.t, s.db)
	o := tinyOptions(fsys)
	o.CacheBytes, o.ScrubPeriod = -1, period
	o.Logger = slog.New(slog.NewTextHandler(log, nil))
	s.db = mustOpen(s.t, "data", o)
	time.Sleep(time.Minute) // what is done to the tree when nobody writes
	synctest.Wait()
}

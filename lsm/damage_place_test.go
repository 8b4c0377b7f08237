package lsm

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"

	"kvd/sstable"
	"kvd/wal"
)

func shaped(t *testing.T, name string) *specimen {
	t.Helper()
	for shape, s := range specimenShapes {
		if s.name == name {
			return makeSpecimen(t, shape, 1, "")
		}
	}
	t.Fatalf("no specimen is %s", name)
	return nil
}

// openReadOnly opens files of s and returns what is wrong.
func (s *specimen) openReadOnly(t *testing.T, files map[string][]byte) (*DB, error) {
	t.Helper()
	disk, err := s.disk(files)
	if err != nil {
		t.Fatal(err)
	}
	o := tinyOptions(disk)
	o.ReadOnly = true
	return Open(s.dir, o)
}

// flipStep is at which bytes the short forms look: at odd distances, so that no field is always missed.
func flipStep() int {
	if *budget > 0 {
		return 1
	}
	return 5*2000/defaultModelSeeds | 1
}

// TestEveryByteFlipped flips each byte of each file, one at a time. Everything reads right or with
// a typed error, and Verify finds what is needed.
func TestEveryByteFlipped(t *testing.T) {
	s := shaped(t, "closed")
	step := flipStep()
	disk, err := s.disk(s.files)
	if err != nil {
		t.Fatal(err)
	}
	flips, refused := 0, map[string]int{}
	for _, name := range s.names() {
		data := s.files[name]
		u := unit{kind: unitStray, file: name, to: len(data)}
		for off := 0; off < len(data); off++ {
			quiet := data[off] == 0 && !slices.ContainsFunc(data[max(off-32, 0):min(off+32, len(data))],
				func(b byte) bool { return b != 0 })
			if off%step != 0 && len(data) > 100 || quiet && off%(61*step) != 0 {
				continue // of what was never written, a sample
			}
			c := &damageCell{s: s, u: u, fault: damageFault{name: fmt.Sprint("flip of byte ", off)}}
			c.files = map[string][]byte{}
			for other, data := range s.files {
				c.files[other] = data
			}
			c.files[name] = slices.Clone(data)
			c.files[name][off] ^= 1 << (off % 8)
			if err := disk.WriteFile(name, c.files[name]); err != nil {
				t.Fatal(err)
			}
			want := c.demands()
			found, err := c.verify(disk, want)
			if err != nil {
				t.Fatalf("%v: %v", c, err)
			}
			result, err := c.open(disk, disk, true)
			if err != nil || result != "" && !found || want.harmful && result == "" {
				t.Fatalf("%v: %s, found %v, %v", c, result, found, err)
			}
			if flips++; found {
				refused[filepath.Base(name)]++
			}
		}
		if err := disk.WriteFile(name, data); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("found of %d: %v", flips, refused)
	count(t, "damages", int64(flips))
	for _, f := range s.layout.Tables {
		if name := s.layout.TableName(f); refused[filepath.Base(name)] == 0 {
			t.Errorf("no flip of %s is noticed", name)
		}
	}
}

// A flip below what is known to be synced is an error that names the place; wherever the log is
// cut after that, it opens with a prefix.
func TestLogFlippedBelowDurableCutAbove(t *testing.T) {
	for _, shape := range []string{"killed", "power loss"} {
		s := shaped(t, shape)
		vouched := wal.Pos(0)
		for _, f := range s.logs {
			vouched = max(vouched, f.durable)
		}
		flips, cuts := 0, 0
		for _, f := range s.logs {
			last := f.file == s.logs[len(s.logs)-1].file
			for off := f.from; off < f.to; off += flipStep() {
				c := &damageCell{s: s, u: unit{unitFrame, f.file, off, off + 1}}
				c.r = rand.New(rand.NewPCG(1, uint64(off)))
				c.fault = damageFault{name: "bit flip", do: (*damageCell).flip}
				c.prepare()
				if s.lost(s.logs, c.files, 0) {
					_, err := s.openReadOnly(t, c.files)
					if e, ok := errors.AsType[*CorruptError](err); !ok || e.File != f.file ||
						e.Offset != int64(f.from) {
						t.Fatalf("%v: %v, want damage at %d", c, err, f.from)
					}
					flips++
				}
				if f.pos < vouched || !last {
					continue
				}
				c.files[f.file] = s.files[f.file][:off]
				db, err := s.openReadOnly(t, c.files)
				if err != nil {
					t.Fatalf("%s: %s cut at %d: %v", s.name, f.file, off, err)
				}
				d := &damagedDB{c: c, db: db}
				if err := d.readAll(nil); err != nil {
					t.Fatalf("%s: %s cut at %d: %v", s.name, f.file, off, err)
				}
				mustClose(t, db)
				cuts++
			}
		}
		if flips == 0 || cuts == 0 {
			t.Errorf("%s: %d flips, %d cuts: not a test", shape, flips, cuts)
		}
		count(t, "damages", int64(flips+cuts))
	}
}

// A segment that is cut exactly between two frames, or was lost as a whole, while later ones exist:
// the log must not go on in the next segment as if nothing were missing.
func TestSegmentCutAtFrameBoundary(t *testing.T) {
	for _, shape := range []string{"killed", "power loss"} {
		s := shaped(t, shape)
		cuts := 0
		for i, f := range s.logs {
			if i+1 < len(s.logs) && f.file == s.logs[len(s.logs)-1].file {
				break // of the last segment
			}
			for _, at := range []int{f.from, f.to} {
				files := maps.Clone(s.files)
				files[f.file] = files[f.file][:at]
				if !s.lost(s.logs, files, 0) {
					continue
				}
				_, err := s.openReadOnly(t, files)
				e, ok := errors.AsType[*CorruptError](err)
				// A segment without frames may not have been used: the one before is where it ends.
				if !ok || at > wal.HeaderBytes && (e.File != f.file || e.Offset != int64(at)) {
					t.Fatalf("%s: %s cut at %d: %v", s.name, f.file, at, err)
				}
				cuts++
			}
		}
		for _, name := range s.layout.Logs {
			files := maps.Clone(s.files)
			delete(files, name)
			_, err := s.openReadOnly(t, files)
			if lost := s.lost(s.logs, files, 0); lost != isCorrupt(err) {
				t.Errorf("%s: %s is missing: %v", s.name, name, err)
			}
		}
		if cuts < 10 {
			t.Errorf("%s: %d cuts: not a test", shape, cuts)
		}
		count(t, "damages", int64(cuts+len(s.layout.Logs)))
	}
}

// A damaged filter would hide keys: whichever of its bits is wrong, the table is refused. And the
// filter that is written knows every key of its table.
func TestFilterNeverHidesAKey(t *testing.T) {
	s := shaped(t, "reopened")
	flips, keys := 0, 0
	for _, u := range s.units {
		if u.kind != unitFilter {
			continue
		}
		for bit := 0; bit < 8*(u.to-u.from); bit += flipStep() {
			files := maps.Clone(s.files)
			data := slices.Clone(files[u.file])
			data[u.from+bit/8] ^= 1 << (bit % 8)
			files[u.file] = data
			_, err := s.openReadOnly(t, files)
			if e, ok := errors.AsType[*CorruptError](err); !ok || e.File != u.file ||
				e.Offset != int64(u.from) {
				t.Fatalf("bit %d of %v: %v", bit, u, err)
			}
			flips++
		}
	}
	disk, err := s.disk(s.files)
	if err != nil {
		t.Fatal(err)
	}
	for _, lt := range s.layout.Tables {
		err := s.layout.InspectTable(disk, lt, func(r *sstable.Reader) error {
			it := r.NewIter(sstable.IterOptions{})
			defer it.Close()
			for ok := it.First(); ok; ok = it.Next() {
				if user := it.Key().User; !r.MayContain(sstable.Hash(user)) {
					t.Errorf("table %d: the filter does not know %q", lt.Meta.Num, user)
				}
				keys++
			}
			return it.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if flips == 0 || keys == 0 {
		t.Errorf("%d flips, %d keys: not a test", flips, keys)
	}
	count(t, "damages", int64(flips))
}

// No length that is read from a damaged file makes Open or Verify take memory for it.
func TestDamageTakesNoMemory(t *testing.T) {
	allocated := func() int64 {
		sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
		metrics.Read(sample)
		return int64(sample[0].Value.Uint64())
	}
	const allocatedMax = 4 << 20 // of a database of 100 KiB
	tried := 0
	for _, shape := range []string{"killed", "reopened"} {
		s := shaped(t, shape)
		r := rand.New(rand.NewPCG(3, 3))
		for range 300 {
			u := s.units[r.IntN(len(s.units))]
			c := &damageCell{s: s, u: u, r: r, turn: tried, files: maps.Clone(s.files)}
			c.fault = damageFaults[r.IntN(3)]
			if u.kind == unitLogTail || u.kind == unitEditTail || !c.prepare() {
				continue
			}
			disk, err := s.disk(c.files)
			if err != nil {
				t.Fatal(err)
			}
			o := tinyOptions(disk)
			o.ReadOnly = true
			before := allocated()
			if db, err := Open(s.dir, o); err == nil {
				mustClose(t, db)
			}
			if _, err := Verify(disk, s.dir, nil); err != nil {
				t.Fatal(err)
			}
			if grown := allocated() - before; grown > allocatedMax {
				t.Errorf("%v: %d KiB allocated", c, grown>>10)
			}
			tried++
		}
	}
	count(t, "damages", int64(tried))
}

// A compaction that meets damage over and over leaves nothing behind: the files are those of the
// tree and of the log, and the next Open has nothing to remove.
func TestDamagedTableLeavesNoFilesBehind(t *testing.T) {
	s := shaped(t, "closed")
	files := maps.Clone(s.files)
	var hit []string
	for _, u := range s.units {
		if u.kind == unitData && !slices.Contains(hit, u.file) {
			data := slices.Clone(files[u.file])
			data[u.from+3] ^= 8
			files[u.file] = data
			hit = append(hit, u.file)
		}
	}
	disk, err := s.disk(files)
	if err != nil {
		t.Fatal(err)
	}
	db := mustOpen(t, s.dir, tinyOptions(disk))
	met := uint64(0) // damage, by compactions
	for round := range 15 {
		if round == 5 {
			met = db.Metrics().Corruptions
		}
		for i := range 20 {
			key := fmt.Appendf(nil, "more%03d", i*round)
			if err := db.Put(key, make([]byte, 50), Async); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := db.Compact(t.Context(), []byte("more"), nil); err != nil {
			t.Fatal(err) // there is no damage in that range
		}
		if err := db.Compact(t.Context(), nil, nil); err == nil {
			t.Fatal("a compaction of damaged tables succeeds")
		}
	}
	if n := db.Metrics().Corruptions; met == 0 || met > uint64(len(hit)) || n != met {
		t.Errorf("compactions met damage in %d tables %d times in 5 rounds, %d in 15: it is tried again",
			len(hit), met, n)
	}
	v := db.acquireState()
	if err := db.checkFiles(v.version); err != nil {
		t.Error(err)
	}
	db.releaseState(v)
	mustClose(t, db)
	for _, name := range hit {
		if data, err := disk.ReadFile(name); err != nil || string(data) != string(files[name]) {
			t.Errorf("%s is damaged and was touched: %v", name, err)
		}
	}
	found, err := Verify(disk, s.dir, nil)
	if err != nil || len(found.Damages) != len(hit) {
		t.Errorf("%d tables were damaged, afterwards there is %v, %v", len(hit), found.Damages, err)
	}
	for _, name := range found.Leftovers {
		if !strings.HasSuffix(name, logSuffix) {
			t.Errorf("%s is left over", name)
		}
	}
	if n := disk.OpenFiles(); n != 0 {
		t.Errorf("%d files left open", n)
	}
}

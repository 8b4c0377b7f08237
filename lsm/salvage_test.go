package lsm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"kvd/lsm/vfs"
	"kvd/wal"
)

const (
	salvageDir = "data"
	salvageTo  = "saved"
)

// salvageImage is a database on a disk, everything that was ever written to it, and what it holds.
type salvageImage struct {
	seed    uint64
	crashed bool
	files   map[string][]byte
	values  map[string]map[string]bool
	truth   map[string]string
	beyond  int // writes that verify, and that lie behind the torn end of the log of a crashed one
}

// newSalvageImage writes a random history through every part of the tree.
func newSalvageImage(t *testing.T, seed uint64) *salvageImage {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 5))
	m := &salvageImage{seed: seed, values: map[string]map[string]bool{}, truth: map[string]string{}}
	disk := vfs.NewMem()
	db := mustOpen(t, salvageDir, tinyOptions(disk))
	must := func(err error) {
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	var snap *Snapshot
	for step := range 150 + r.IntN(400) {
		switch n := r.IntN(100); {
		case n < 3:
			must(db.Flush())
		case n == 3 && r.IntN(4) == 0:
			must(db.Compact(t.Context(), nil, nil))
		case n == 4 && snap == nil:
			snap = db.NewSnapshot()
		case n == 5 && snap != nil:
			must(snap.Close())
			snap = nil
		case n == 6 && r.IntN(4) == 0:
			if snap != nil {
				must(snap.Close())
				snap = nil
			}
			must(db.Close())
			db = mustOpen(t, salvageDir, tinyOptions(disk))
		default:
			var b Batch
			for range 1 + r.IntN(3)*r.IntN(3) {
				m.write(r, &b, step)
			}
			must(db.Apply(&b, Durability(r.IntN(3))))
		}
	}
	if snap != nil {
		must(snap.Close())
	}
	if m.crashed = r.IntN(3) == 0; m.crashed {
		after := disk.Crash(r, vfs.CrashModes[r.IntN(len(vfs.CrashModes))])
		mustClose(t, db)
		m.files = filesOf(t, after, salvageDir)
		opened := m.disk(t, m.files)
		m.truth = contentsOf(t, opened, salvageDir)
		m.beyond = m.writesBeyond(t, opened)
		return m
	}
	mustClose(t, db)
	m.files = filesOf(t, disk, salvageDir)
	return m
}

// writesBeyond counts the writes in the log that a database, now opened, has left out. A salvage uses
// them when damage before them has it take everything that verifies.
func (m *salvageImage) writesBeyond(t *testing.T, opened vfs.FS) (n int) {
	t.Helper()
	db := mustOpen(t, salvageDir, tinyOptions(opened))
	defer mustClose(t, db)
	for base, data := range m.files {
		kind, num := parseName(base)
		if kind != fileLog {
			continue
		}
		r, err := wal.NewReader(wal.Segment{Number: num, R: bytes.NewReader(data), Size: int64(len(data))})
		for err == nil && (r.Next() || r.Resync()) {
			for p := r.Frame().Payload; len(p) > 0; {
				rec, rest, ok := wal.NextRecord(p)
				if !ok {
					break
				}
				_, first, count, err := openBatch(rec)
				if err == nil && first > db.commit.lastSeq {
					n += int(count)
				}
				p = rest
			}
		}
	}
	return n
}

func (m *salvageImage) write(r *rand.Rand, b *Batch, step int) {
	key := fmt.Sprintf("key%03d", r.IntN(150))
	if r.IntN(5) == 0 {
		b.Delete([]byte(key))
		delete(m.truth, key)
		return
	}
	value := fmt.Sprintf("%d/%d/%x", step, b.Len(), r.Uint64())
	value += strings.Repeat(".", r.IntN(60))
	b.Put([]byte(key), []byte(value))
	m.truth[key] = value
	if m.values[key] == nil {
		m.values[key] = map[string]bool{}
	}
	m.values[key][value] = true
}

// filesOf takes the files as they were at one moment: an open database renames and removes some in
// the background.
func filesOf(t *testing.T, disk *vfs.Mem, dir string) map[string][]byte {
	t.Helper()
	disk = disk.Crash(nil, vfs.KeepAll)
	names, err := disk.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, base := range names {
		if files[base], err = disk.ReadFile(filepath.Join(dir, base)); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func (m *salvageImage) disk(t *testing.T, files map[string][]byte) *vfs.Mem {
	t.Helper()
	disk := vfs.NewMem()
	err := disk.MkdirAll(salvageDir)
	for base, data := range files {
		err = errors.Join(err, disk.WriteFile(filepath.Join(salvageDir, base), data))
	}
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

// contentsOf opens a database, which may change it, and reads it.
func contentsOf(t *testing.T, disk vfs.FS, dir string) map[string]string {
	t.Helper()
	got, err := tryContentsOf(t, disk, dir)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func tryContentsOf(t *testing.T, disk vfs.FS, dir string) (map[string]string, error) {
	t.Helper()
	db, err := Open(dir, tinyOptions(disk))
	if err != nil {
		return nil, err
	}
	defer mustClose(t, db)
	got := map[string]string{}
	it := db.NewIter(IterOptions{})
	for key, value := range it.All() {
		got[string(key)] = string(value)
	}
	return got, errors.Join(it.Err(), it.Close(), db.Check())
}

// salvageCell is one way to damage an image.
type salvageCell struct {
	what     string
	damage   func(files map[string][]byte)
	harmless bool // nothing may be lost, nor listed as lost
	tail     bool // it may hit what nothing vouches for: the last frame of a log that was not closed
}

// salvageCells lists every unit of the image and the ways to damage it.
func (m *salvageImage) cells(r *rand.Rand) (cells []salvageCell) {
	add := func(harmless bool, what string, damage func(files map[string][]byte)) {
		tail := m.crashed && (strings.Contains(what, logSuffix) || strings.Contains(what, manifestPrefix))
		cells = append(cells, salvageCell{what, damage, harmless, tail})
	}
	change := func(harmless bool, base, what string, off, n int, with func(p []byte)) {
		add(harmless, base+" "+what, func(files map[string][]byte) {
			data := bytes.Clone(files[base])
			if off < len(data) {
				with(data[off:min(off+n, len(data))])
			}
			files[base] = data
		})
	}
	flip := func(p []byte) { p[0] ^= 0x20 }
	zero := func(p []byte) { clear(p) }
	bases := slices.Sorted(maps.Keys(m.files))
	for _, base := range bases {
		data := m.files[base]
		kind, num := parseName(base)
		if base == lockName {
			continue
		}
		isCurrent := base == currentName
		add(isCurrent, base+" missing", func(f map[string][]byte) { delete(f, base) })
		add(isCurrent, base+" empty", func(f map[string][]byte) { f[base] = nil })
		change(isCurrent, base, "zeros", 0, len(data), zero)
		cut := r.IntN(len(data) + 1)
		add(isCurrent && cut > 0, fmt.Sprintf("%s cut to %d", base, cut),
			func(f map[string][]byte) { f[base] = f[base][:min(cut, len(f[base]))] })
		add(false, base+" longer", func(f map[string][]byte) {
			f[base] = append(bytes.Clone(f[base]), make([]byte, 700)...)
		})
		if other := bases[r.IntN(len(bases))]; other != lockName {
			harmless := false
			if otherKind, _ := parseName(other); otherKind == kind && kind == fileTable {
				harmless = true // tables are known by their identity
			}
			add(harmless, base+" and "+other+" swapped", func(f map[string][]byte) {
				f[base], f[other] = f[other], f[base]
			})
		}
		switch kind {
		case fileTable:
			m.tableCells(base, change)
		case fileLog, fileManifest:
			change(true, base, "first copy of the header", 0, 40, zero)
			change(true, base, "second copy of the header", 2048, 40, zero)
			change(false, base, "header", 0, 4096, zero)
			for _, f := range framesOf(num, data) {
				change(false, base, fmt.Sprintf("head of frame %d", f.Offset),
					int(f.Offset)+r.IntN(24), 1, flip)
				n := max(len(f.Payload), 1)
				change(false, base, fmt.Sprintf("frame %d", f.Offset),
					int(f.Offset)+24+r.IntN(n), 1+r.IntN(n), zero)
			}
		default:
			change(isCurrent, base, "byte", r.IntN(len(data)), 1, flip)
		}
	}
	return cells
}

// tableCells damages each part of a table: blocks are a few hundred bytes here.
func (m *salvageImage) tableCells(
	base string, change func(harmless bool, base, what string, off, n int, with func([]byte)),
) {
	data, flip, zero := m.files[base], func(p []byte) { p[0] ^= 1 }, func(p []byte) { clear(p) }
	if len(data) < 128 || !bytes.HasSuffix(data, []byte("sst\n")) {
		return // a crash cut it short
	}
	foot := data[len(data)-128:]
	at := func(i int) int { return int(binary.LittleEndian.Uint64(foot[16+24*i:])) }
	length := func(i int) int { return int(binary.LittleEndian.Uint64(foot[24+24*i:])) }
	for off := 0; off < at(0); off += 200 {
		change(false, base, fmt.Sprintf("data at %d", off), off, 1, flip)
		change(false, base, fmt.Sprintf("data and index at %d", off), off, at(1)+length(1)-off,
			func(p []byte) { clear(p[:min(60, len(p))]); clear(p[max(len(p)-length(1), 0):]) })
	}
	for i, name := range []string{"filter", "index", "properties"} {
		if length(i) > 0 {
			change(true, base, name, at(i)+length(i)/2, 1, flip)
			change(true, base, name+" zeros", at(i), length(i), zero)
		}
	}
	change(true, base, "all but the blocks", at(0), len(data)-at(0), zero)
	change(true, base, "footer", len(data)-100, 1, flip)
}

func framesOf(num uint64, data []byte) (frames []wal.Frame) {
	r, err := wal.NewReader(wal.Segment{Number: num, R: bytes.NewReader(data), Size: int64(len(data))})
	for err == nil && r.Next() {
		f := r.Frame()
		f.Payload = bytes.Clone(f.Payload)
		frames = append(frames, f)
	}
	return frames
}

func (l *Loss) covers(key string) bool {
	return bytes.Compare(l.From, []byte(key)) <= 0 &&
		(l.To == nil || bytes.Compare([]byte(key), l.To) <= 0)
}

// run damages a copy of the image, salvages it and checks the result.
func (m *salvageImage) run(t *testing.T, c salvageCell) {
	t.Helper()
	files := maps.Clone(m.files)
	c.damage(files)
	disk := m.disk(t, files)
	what := fmt.Sprintf("seed %d, %s", m.seed, c.what)
	report, err := Salvage(t.Context(), disk, salvageDir, salvageTo,
		SalvageOptions{New: tinyOptions(nil)})
	if now := filesOf(t, disk, salvageDir); !maps.EqualFunc(now, files, bytes.Equal) {
		t.Fatalf("%s: the source has changed", what)
	}
	if disk.OpenFiles() != 0 {
		t.Fatalf("%s: %d files left open", what, disk.OpenFiles())
	}
	if errors.Is(err, ErrNothingSalvaged) && len(m.files) < 6 {
		return
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if _, err := disk.List(salvageTo + partialSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%s: the place of preparation is left: %v", what, err)
	}
	got := contentsOf(t, disk, salvageTo)
	if uint64(len(got)) != report.Keys {
		t.Fatalf("%s: %d keys, the report says %d", what, len(got), report.Keys)
	}
	if c.harmless && len(report.Losses) > 0 {
		t.Fatalf("%s: listed as lost: %+v", what, report.Losses)
	}
	wrong, entries := m.compare(t, what, got, report)
	switch {
	case len(wrong) == 0:
	case len(report.Losses) > 0:
		if entries > 0 && len(wrong) > entries+m.beyond {
			t.Fatalf("%s: %d keys differ, but only %d writes are listed as lost and %d more found",
				what, len(wrong), entries, m.beyond)
		}
	default:
		// Nothing vouches for the last synced frame of a log that was not closed, nor for the last
		// edit of its manifest: the database opens so.
		opened, err := tryContentsOf(t, disk, salvageDir)
		if !m.crashed || err != nil || !maps.Equal(opened, got) {
			t.Fatalf("%s: nothing is listed, but %v are wrong; notes %v", what, wrong, report.Notes)
		}
	}
}

// compare returns the keys that are wrong and in no range of keys that is listed; entries is how
// many writes without such a range are listed, 0 if that is not known.
func (m *salvageImage) compare(t *testing.T, what string, got map[string]string, r *SalvageReport) (
	wrong []string, entries int,
) {
	t.Helper()
	known := true
	for _, l := range r.Losses {
		if l.From == nil && l.To == nil {
			known = known && l.Entries > 0
			entries += int(l.Entries)
		}
	}
	if !known {
		entries = 0
	}
	all := maps.Clone(m.truth)
	maps.Copy(all, got)
	for key := range all {
		value, present := got[key]
		if present && !m.values[key][value] {
			t.Fatalf("%s: %s = %q was never written", what, key, value)
		}
		right, wanted := m.truth[key]
		if present == wanted && value == right {
			continue
		}
		ranged, doubted := false, false
		for _, l := range r.Losses {
			if l.covers(key) {
				doubted = doubted || l.MayBeOld > 0
				ranged = ranged || l.From != nil || l.To != nil
			}
		}
		if present && !doubted && len(r.Losses) > 0 && !m.crashed {
			t.Fatalf("%s: %s is old and not counted as such: %+v", what, key, r.Losses)
		}
		if !ranged {
			wrong = append(wrong, key)
		}
	}
	return wrong, entries
}

var salvageSeed = flag.Uint64("salvage.seed", 0, "run only the images of this seed, with all cells")

// TestSalvage damages random databases in every unit, salvages them, and demands that all that is
// not listed as lost is exactly right, that nothing is invented, and that the source is unchanged.
func TestSalvage(t *testing.T) {
	done := int64(0)
	defer func() { count(t, "salvages", done) }()
	one := func(seed uint64, most int) {
		m := newSalvageImage(t, seed)
		r := rand.New(rand.NewPCG(seed, 6))
		m.run(t, salvageCell{"undamaged", func(map[string][]byte) {}, true, false})
		cells := m.cells(r)
		r.Shuffle(len(cells), func(i, j int) { cells[i], cells[j] = cells[j], cells[i] })
		for i, c := range cells[:min(most, len(cells))] {
			m.run(t, c)
			done++
			if other := cells[(i+1)%len(cells)]; i%4 == 0 && !c.tail && !other.tail {
				m.run(t, salvageCell{c.what + ", " + other.what, func(f map[string][]byte) {
					c.damage(f)
					other.damage(f)
				}, false, false})
				done++
			}
		}
	}
	if *salvageSeed != 0 {
		one(*salvageSeed, 1<<30)
		return
	}
	defer func() {
		if t.Failed() {
			t.Log("repeat with: go test ./lsm -run 'TestSalvage$' -salvage.seed=SEED")
		}
	}()
	for seed := range uint64(defaultModelSeeds / 80) {
		one(seed+1, 14)
	}
	for began := time.Now(); time.Since(began) < *budget; {
		one(rand.Uint64(), 1<<30)
	}
}

// TestSalvageFaults lets each operation of a salvage fail in turn. The error is typed, the source
// is as it was, and the new directory is whole or not there. A disk that fails to read the source
// is no error: what it cannot read is listed.
func TestSalvageFaults(t *testing.T) {
	m := newSalvageImage(t, 3)
	cases := int64(0)
	for _, kind := range []error{syscall.ENOSPC, syscall.EIO} {
		step := uint64(7)
		if *budget > 0 {
			step = 1
		}
		for at := uint64(1); ; at += step {
			disk, hit := m.disk(t, m.files), atomic.Bool{}
			fsys := vfs.NewFault(disk, func(o vfs.Op) error {
				full := kind == syscall.ENOSPC // from then on
				if o.N != at && !(full && hit.Load()) {
					return nil
				}
				hit.Store(true)
				if full && !o.Kind.Writes() {
					return nil
				}
				return kind
			})
			report, err := Salvage(t.Context(), fsys, salvageDir, salvageTo,
				SalvageOptions{New: tinyOptions(nil)})
			cases++
			if now := filesOf(t, disk, salvageDir); !maps.EqualFunc(now, m.files, bytes.Equal) {
				t.Fatalf("%v at %d: the source has changed", kind, at)
			}
			if disk.OpenFiles() != 0 {
				t.Fatalf("%v at %d: %d files left open", kind, at, disk.OpenFiles())
			}
			_, there := disk.List(salvageTo)
			switch {
			case err == nil && there == nil:
				got := contentsOf(t, disk, salvageTo)
				if wrong, _ := m.compare(t, fmt.Sprint(kind, at), got, report); len(wrong) > 0 &&
					len(report.Losses) == 0 {
					t.Fatalf("%v at %d: %v are wrong and nothing is listed", kind, at, wrong)
				}
			case err == nil:
				t.Fatalf("%v at %d: no error and no database", kind, at)
			case !errors.Is(err, kind) && !errors.Is(err, ErrDiskFull) && !errors.Is(err, ErrReadOnly):
				t.Fatalf("%v at %d: %v", kind, at, err)
			case there == nil: // only the last sync can fail with the database in place
				if got := contentsOf(t, disk, salvageTo); !maps.Equal(got, m.truth) {
					t.Fatalf("%v at %d: half a database in place", kind, at)
				}
			}
			if !hit.Load() {
				break
			}
		}
	}
	count(t, "fault cases", cases)
}

// TestSalvageCrashes cuts the power at moments of a salvage: the new directory is whole or absent.
func TestSalvageCrashes(t *testing.T) {
	m := newSalvageImage(t, 5)
	step := uint64(23)
	if *budget > 0 {
		step = 1
	}
	crashes := int64(0)
	for at := uint64(1); ; at += step {
		disk := m.disk(t, m.files)
		var after *vfs.Mem
		fsys := vfs.NewFault(disk, func(o vfs.Op) error {
			if o.N == at {
				after = disk.Crash(rand.New(rand.NewPCG(at, 7)), vfs.CrashModes[int(at)%len(vfs.CrashModes)])
			}
			return nil
		})
		_, err := Salvage(t.Context(), fsys, salvageDir, salvageTo, SalvageOptions{New: tinyOptions(nil)})
		if err != nil {
			t.Fatal(err)
		}
		if after == nil {
			break
		}
		crashes++
		if _, err := after.List(salvageTo); err == nil {
			if got := contentsOf(t, after, salvageTo); !maps.Equal(got, m.truth) {
				t.Fatalf("crash at %d: half a database in place", at)
			}
		}
	}
	count(t, "crash points", crashes)
}

// TestSalvageBehindItsManifest loses the last edits of a manifest, which looks like a torn end: the
// tables it lists are gone, and others are there. Those are used, and that is said.
func TestSalvageBehindItsManifest(t *testing.T) {
	m, before := compactedAway(t)
	for base, data := range before {
		if kind, _ := parseName(base); kind == fileManifest {
			m.files[base] = data
		}
	}
	got, report := m.salvage(t)
	if !maps.Equal(got, m.truth) {
		t.Errorf("got %v, want %v", got, m.truth)
	}
	if report.Manifest != "" || len(report.Losses) == 0 || report.Losses[0].MayBeOld == 0 {
		t.Errorf("nothing says that the tables are a guess: %+v", report.Losses)
	}
}

// TestSalvageKnowsWhatWasReplaced damages the first edit of a manifest while a table is back that a
// later edit removed: it must not bring deleted keys back.
func TestSalvageKnowsWhatWasReplaced(t *testing.T) {
	m, before := compactedAway(t)
	for base, data := range before {
		if kind, _ := parseName(base); kind == fileTable && m.files[base] == nil {
			m.files[base] = data
		}
	}
	for base, data := range m.files {
		if kind, num := parseName(base); kind == fileManifest {
			data[framesOf(num, data)[0].Offset+25] ^= 1
		}
	}
	got, report := m.salvage(t)
	if !maps.Equal(got, m.truth) {
		t.Errorf("got %v, want %v", got, m.truth)
	}
	if len(report.Losses) == 0 {
		t.Error("nothing says that the tables are a guess")
	}
}

// TestSalvageFindsTheTableBesideATornOne: what a crash left of an unfinished table has the name of a
// sound one, which has its. Nothing is lost: the sound one is known by its identity.
func TestSalvageFindsTheTableBesideATornOne(t *testing.T) {
	m, _ := compactedAway(t)
	torn := filepath.Base(tableName("", 99))
	for base, data := range m.files {
		if kind, _ := parseName(base); kind == fileTable && base != torn {
			m.files[base], m.files[torn] = data[:len(data)/8], data
		}
	}
	got, report := m.salvage(t)
	if !maps.Equal(got, m.truth) || len(report.Losses) > 0 {
		t.Errorf("got %v, want %v; losses %+v", got, m.truth, report.Losses)
	}
	if notes := fmt.Sprint(report.Notes); !strings.Contains(notes, "this is table") ||
		!strings.Contains(notes, "left aside") {
		t.Errorf("notes %s", notes)
	}
}

// compactedAway is a database in which a tombstone and what it hid were compacted away, and the
// files as they were before that.
func compactedAway(t *testing.T) (m *salvageImage, before map[string][]byte) {
	t.Helper()
	m = &salvageImage{truth: map[string]string{"b": "new", "c": "in the log"}}
	disk := vfs.NewMem()
	db := mustOpen(t, salvageDir, tinyOptions(disk))
	for _, err := range []error{
		db.Put([]byte("a"), []byte("deleted"), Sync), db.Put([]byte("b"), []byte("old"), Sync), db.Flush(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	before = filesOf(t, disk, salvageDir)
	for _, err := range []error{
		db.Delete([]byte("a"), Sync), db.Put([]byte("b"), []byte("new"), Sync), db.Flush(),
		db.Compact(t.Context(), nil, nil), db.Put([]byte("c"), []byte("in the log"), Sync),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, db)
	m.files = filesOf(t, disk, salvageDir)
	return m, before
}

func (m *salvageImage) salvage(t *testing.T) (map[string]string, *SalvageReport) {
	t.Helper()
	disk := m.disk(t, m.files)
	report, err := Salvage(t.Context(), disk, salvageDir, salvageTo, SalvageOptions{New: tinyOptions(nil)})
	if err != nil {
		t.Fatal(err)
	}
	return contentsOf(t, disk, salvageTo), report
}

// TestSalvageForeignLog: the segment of another database verifies, and is left aside.
func TestSalvageForeignLog(t *testing.T) {
	m, _ := compactedAway(t)
	written := func(files map[string][]byte) map[string][]byte {
		logs := make(map[string][]byte)
		for base, data := range files {
			if kind, num := parseName(base); kind == fileLog && len(framesOf(num, data)) > 0 {
				logs[base] = data
			}
		}
		return logs
	}
	var foreign map[string][]byte
	same := func(_, _ []byte) bool { return true }
	for !maps.EqualFunc(foreign, written(m.files), same) { // they need not take the same numbers
		other, _ := compactedAway(t)
		foreign = written(other.files)
	}
	maps.Copy(m.files, foreign)
	got, report := m.salvage(t)
	delete(m.truth, "c")
	if !maps.Equal(got, m.truth) || len(report.Losses) == 0 {
		t.Errorf("got %v, want %v; losses %+v", got, m.truth, report.Losses)
	}
}

func TestSalvageRefuses(t *testing.T) {
	m := newSalvageImage(t, 1)
	disk := m.disk(t, m.files)
	salvage := func(dir, to string) error {
		_, err := Salvage(t.Context(), disk, dir, to, SalvageOptions{})
		return err
	}
	err := errors.Join(disk.MkdirAll("full/x"), disk.MkdirAll("none"), disk.MkdirAll("b.partial"),
		disk.MkdirAll("other"), disk.WriteFile("other/CURRENT", []byte(currentLine("kvd-9", "MANIFEST-000001"))),
		disk.MkdirAll("zeros"), disk.WriteFile("zeros/000001.sst", make([]byte, 5000)))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir, to string
		want    error
	}{
		{salvageDir, "full", fs.ErrExist},
		{salvageDir, "b", fs.ErrExist},
		{salvageDir, salvageDir + "/new", fs.ErrInvalid},
		{salvageDir, salvageDir, fs.ErrInvalid},
		{".", "new", fs.ErrInvalid},
		{"/", "/new", fs.ErrInvalid},
		{"none", "new", fs.ErrNotExist},
		{"missing", "new", fs.ErrNotExist},
		{"other", "new", ErrFormat},
		{"zeros", "new", ErrNothingSalvaged},
	} {
		if err := salvage(c.dir, c.to); !errors.Is(err, c.want) {
			t.Errorf("from %s to %s: %v, want %v", c.dir, c.to, err, c.want)
		}
	}
	if names, _ := disk.List("/"); slices.Contains(names, "new") || slices.Contains(names, "new.partial") {
		t.Errorf("a refused salvage left %v", names)
	}
	db := mustOpen(t, salvageDir, tinyOptions(disk))
	if err := salvage(salvageDir, "new"); !errors.Is(err, ErrLocked) {
		t.Errorf("of an open database: %v", err)
	}
	mustClose(t, db)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Salvage(ctx, disk, salvageDir, "new", SalvageOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := disk.MkdirAll("empty"); err != nil {
		t.Fatal(err)
	}
	if err := salvage(salvageDir, "empty"); err != nil {
		t.Errorf("into an empty directory: %v", err)
	}
}

// TestSalvageLeavesItsTarget: the empty directory that was to become the database is there when all
// but the last step went well.
func TestSalvageLeavesItsTarget(t *testing.T) {
	m := newSalvageImage(t, 1)
	disk := m.disk(t, m.files)
	fsys := vfs.NewFault(disk, func(o vfs.Op) error {
		if o.Kind == vfs.OpRename && o.NewName == "to" {
			return syscall.EIO
		}
		return nil
	})
	if err := disk.MkdirAll("to"); err != nil {
		t.Fatal(err)
	}
	_, err := Salvage(t.Context(), fsys, salvageDir, "to", SalvageOptions{})
	if names, listErr := disk.List("to"); !errors.Is(err, syscall.EIO) || listErr != nil || len(names) > 0 {
		t.Errorf("Salvage: %v; it left %v, %v", err, names, listErr)
	}
}

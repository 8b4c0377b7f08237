package lsm

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"kvd/lsm/vfs"
)

// damaged is a small database of every kind of file, closed, and what it holds.
type damaged struct {
	t     *testing.T
	disk  *vfs.Mem
	files map[string][]byte // path -> content
	want  map[string]string
}

const damageDir = "data"

func newDamaged(t *testing.T) *damaged {
	d := &damaged{t: t, disk: vfs.NewMem(), want: map[string]string{}}
	db := mustOpen(t, damageDir, tinyOptions(d.disk))
	put := func(key, value string, durability Durability) {
		t.Helper()
		if err := db.Put([]byte(key), []byte(value), durability); err != nil {
			t.Fatal(err)
		}
		d.want[key] = value
	}
	for round := range 2 {
		for i := range 40 {
			put(fmt.Sprintf("key%03d", i*(round+1)), fmt.Sprintf("value %d %d", round, i), Async)
		}
		if err := db.Delete([]byte("key001"), Async); err != nil {
			t.Fatal(err)
		}
		delete(d.want, "key001")
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Compact(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	put("key003", "in a table over the deepest", Async)
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		put(fmt.Sprintf("key%03d", i*9), fmt.Sprintf("in the log %d", i), Durability(i%2))
	}
	mustClose(t, db)
	d.shrink()
	return d
}

// shrink cuts the zeros that logs and manifests are extended by, and notes the files.
func (d *damaged) shrink() {
	d.files = map[string][]byte{}
	names, err := d.disk.List(damageDir)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, base := range names {
		name := filepath.Join(damageDir, base)
		data, err := d.disk.ReadFile(name)
		if err != nil {
			d.t.Fatal(err)
		}
		if kind, _ := parseName(base); kind == fileLog || kind == fileManifest {
			const page = 512
			used := (len(bytes.TrimRight(data, "\x00")) + page) / page * page
			data = data[:min(used, len(data))]
			if err := d.disk.WriteFile(name, data); err != nil {
				d.t.Fatal(err)
			}
		}
		d.files[name] = data
	}
}

func (d *damaged) names() []string { return slices.Sorted(maps.Keys(d.files)) }

// typed demands that an error is one that speaks of damage, of a file that there is or was.
func (d *damaged) typed(what string, err error) {
	d.t.Helper()
	corrupt, ok := errors.AsType[*CorruptError](err)
	if errors.Is(err, ErrFormat) {
		return
	}
	if !ok {
		d.t.Fatalf("%s: %v", what, err)
	}
	if _, ok := d.files[corrupt.File]; !ok || corrupt.Reason == "" || corrupt.Offset < -1 {
		d.t.Fatalf("%s: %+v", what, corrupt)
	}
}

// read opens the database, reads everything and demands the right values or a typed error.
func (d *damaged) read(what string, fsys vfs.FS, readOnly bool) (refused error) {
	o := tinyOptions(fsys)
	o.ReadOnly = readOnly
	db, err := Open(damageDir, o)
	if err != nil {
		d.typed(what, err)
		return err
	}
	got, failed := map[string]string{}, false
	it := db.NewIter(IterOptions{})
	for key, value := range it.All() {
		got[string(key)] = string(value)
	}
	if it.Err() != nil {
		d.typed(what+": scan", it.Err())
		failed = true
	}
	if !failed && !maps.Equal(got, d.want) {
		d.t.Fatalf("%s: scan is silently wrong:%s", what, difference(got, d.want))
	}
	for key, value := range got {
		if d.want[key] != value {
			d.t.Fatalf("%s: scan says that %s is %q, not %q", what, key, value, d.want[key])
		}
	}
	_ = it.Close()
	d.backward(what, db, d.want)
	for i := range 90 {
		key := fmt.Sprintf("key%03d", i)
		value, err := db.Get([]byte(key))
		right, ok := d.want[key]
		switch {
		case ok && err == nil && string(value) == right:
		case !ok && errors.Is(err, ErrNotFound):
		case err == nil || errors.Is(err, ErrNotFound):
			d.t.Fatalf("%s: Get(%s) = %q, %v, want %q", what, key, value, err, right)
		default:
			d.typed(what+": Get", err)
		}
	}
	if err := db.Close(); err != nil {
		d.t.Fatalf("%s: Close: %v", what, err)
	}
	return nil
}

func (d *damaged) backward(what string, db *DB, want map[string]string) {
	it := db.NewIter(IterOptions{})
	n := 0
	for ok := it.Last(); ok; ok = it.Prev() {
		if n++; want[string(it.Key())] != string(it.Value()) {
			d.t.Fatalf("%s: backward: %s is %q", what, it.Key(), it.Value())
		}
	}
	if it.Err() != nil {
		d.typed(what+": backward", it.Err())
	} else if n != len(want) {
		d.t.Fatalf("%s: backward: %d keys of %d", what, n, len(want))
	}
	_ = it.Close()
}

// TestEveryByteFlipped flips each byte of each file, one at a time. The database is opened read
// only, so nothing heals what the next case needs.
func TestEveryByteFlipped(t *testing.T) {
	d := newDamaged(t)
	if d.read("undamaged", d.disk, true) != nil {
		t.Fatal("does not open undamaged")
	}
	step := max(1, 2000/defaultModelSeeds) // 10 under the race detector
	flips, refused := 0, map[string]int{}
	for _, name := range d.names() {
		data := d.files[name]
		written := len(bytes.TrimRight(data, "\x00"))
		for off := 0; off < len(data); off++ {
			zero := data[off] == 0 && (off > written || bytes.Trim(
				data[max(off-32, 0):min(off+32, len(data))], "\x00") == nil)
			if off%step != 0 && len(data) > 1000 || zero && off%61 != 0 {
				continue // of what was never written, a sample
			}
			flip(t, d.disk, name, off)
			what := fmt.Sprintf("%s, byte %d flipped", name, off)
			err := d.read(what, d.disk, true)
			if flips++; err != nil {
				refused[filepath.Base(name)]++
			}
			flip(t, d.disk, name, off)
		}
	}
	d.unchanged("all flips", d.disk)
	t.Logf("%d flips; Open refuses: %v", flips, refused)
	for _, name := range d.names() {
		base := filepath.Base(name) // of the logs only one is needed
		if base != lockName && !strings.HasSuffix(base, logSuffix) && refused[base] == 0 {
			t.Errorf("no flip of %s is noticed", name)
		}
	}
}

func flip(t *testing.T, disk *vfs.Mem, name string, off int) {
	if err := disk.FlipByte(name, int64(off), 1<<(off%8)); err != nil {
		t.Fatal(err)
	}
}

// unchanged demands that the files on disk are those of d, byte by byte.
func (d *damaged) unchanged(what string, disk *vfs.Mem) {
	d.t.Helper()
	names, err := disk.List(damageDir)
	if err != nil || len(names) != len(d.files) {
		d.t.Fatalf("%s: %v became %v, %v", what, d.names(), names, err)
	}
	for _, name := range d.names() {
		if now, err := disk.ReadFile(name); err != nil || !bytes.Equal(now, d.files[name]) {
			d.t.Fatalf("%s: %s has changed, %v", what, name, err)
		}
	}
}

// variant is a copy of the files that a test damages before it writes them to a disk of their own.
func (d *damaged) variant(what string, damage func(files map[string][]byte)) {
	files := maps.Clone(d.files)
	damage(files)
	disk := vfs.NewMem()
	if err := disk.MkdirAll(damageDir); err != nil {
		d.t.Fatal(err)
	}
	for name, data := range files {
		if err := disk.WriteFile(name, data); err != nil {
			d.t.Fatal(err)
		}
	}
	err := d.read(what, disk, false)
	if n := disk.OpenFiles(); n != 0 {
		d.t.Fatalf("%s: %d files left open", what, n)
	}
	if err == nil {
		return
	}
	before := &damaged{t: d.t, files: files}
	lock := filepath.Join(damageDir, lockName)
	if _, ok := files[lock]; !ok { // a refused Open may make it
		_ = disk.Remove(lock)
	}
	before.unchanged(what+", Open refused", disk)
}

// TestFilesCutMissingSwapped damages files as a whole.
func TestFilesCutMissingSwapped(t *testing.T) {
	d := newDamaged(t)
	for _, name := range d.names() {
		for size := 0; size < len(d.files[name]); size += 512 {
			what := fmt.Sprintf("%s cut to %d bytes", name, size)
			d.variant(what, func(files map[string][]byte) {
				files[name] = files[name][:size]
			})
		}
		d.variant(name+" missing", func(files map[string][]byte) { delete(files, name) })
		d.variant(name+" empty", func(files map[string][]byte) { files[name] = nil })
		d.variant(name+" zeros", func(files map[string][]byte) {
			files[name] = make([]byte, len(files[name]))
		})
		d.variant(name+" longer", func(files map[string][]byte) {
			files[name] = append(slices.Clone(files[name]), 1)
		})
		for _, other := range d.names() {
			if other > name {
				d.variant(name+" and "+other+" swapped", func(files map[string][]byte) {
					files[name], files[other] = files[other], files[name]
				})
			}
		}
	}
}

func TestForeignDirectories(t *testing.T) {
	fine := func(err error) bool { return err == nil }
	for _, c := range []struct {
		name, base, content string
		want                func(error) bool
	}{
		{"another engine", currentName, "MANIFEST-000001\n", isFormat},
		{"another format", currentName, "rocks-9 MANIFEST-000001 f37d3bb2\n", isFormat},
		{"no text", currentName, "\x00\x01\x02", isFormat},
		{"a damaged line", currentName, "kvd-1 MANIFEST-000001 f37d3bb2\n", isCorrupt},
		{"a log without CURRENT", "000007.wal", "x", isCorrupt},
		{"a table without CURRENT", "000007.sst", "x", isCorrupt},
		{"a directory of something else", "notes.txt", "x", fine},
		{"numbers of another width", "0000007.sst", "x", fine},
	} {
		disk := vfs.NewMem()
		if err := disk.MkdirAll("d"); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join("d", c.base)
		if err := disk.WriteFile(name, []byte(c.content)); err != nil {
			t.Fatal(err)
		}
		db, err := Open("d", tinyOptions(disk))
		if !c.want(err) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			mustClose(t, db)
		}
		if data, err := disk.ReadFile(name); err != nil || string(data) != c.content {
			t.Errorf("%s: the file has become %q, %v", c.name, data, err)
		}
	}
	line := currentLine("kvd-9", "MANIFEST-000001")
	disk := vfs.NewMem()
	err := errors.Join(disk.MkdirAll("d"), disk.WriteFile("d/CURRENT", []byte(line)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open("d", tinyOptions(disk)); !errors.Is(err, ErrFormat) {
		t.Errorf("another format: %v", err)
	}
	o := tinyOptions(vfs.NewMem())
	o.ReadOnly = true
	if _, err := Open("d", o); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read only without a database: %v", err)
	}
}

func isFormat(err error) bool { return errors.Is(err, ErrFormat) }

func isCorrupt(err error) bool {
	_, ok := errors.AsType[*CorruptError](err)
	return ok
}

// An Open that refused a database kept the memory of the replay and of the first memtable.
func TestRefusedOpenFreesItsMemory(t *testing.T) {
	size := func() (bytes int64) {
		statm, err := os.ReadFile("/proc/self/statm")
		if _, scanErr := fmt.Sscan(string(statm), &bytes); err != nil || scanErr != nil {
			t.Skip("no /proc/self/statm")
		}
		return bytes * int64(os.Getpagesize())
	}
	fsys := newFailingFS(func(o vfs.Op) error {
		if o.Kind == vfs.OpCreate && (strings.HasSuffix(o.Name, tableSuffix) ||
			strings.Contains(o.Name, manifestPrefix)) {
			return syscall.EIO
		}
		return nil
	})
	o := Options{FS: fsys, MemtableBytes: 1 << 30} // of addresses
	for _, withLog := range []bool{false, true} {
		db := mustOpen(t, "data", o)
		if withLog { // that the replay makes a table of
			if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, db)
		before := size()
		fsys.armed.Store(true)
		for range 20 {
			if _, err := Open("data", o); !errors.Is(err, syscall.EIO) {
				t.Fatal(err)
			}
		}
		fsys.armed.Store(false)
		if grown := size() - before; grown > 10<<30 {
			t.Errorf("20 refused Opens keep %d MiB (log: %v)", grown>>20, withLog)
		}
	}
}

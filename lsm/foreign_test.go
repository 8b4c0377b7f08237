package lsm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"kvd/lsm/vfs"
)

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

package lsm

import (
	"errors"
	"path/filepath"
	"testing"

	"kvd/lsm/vfs"
)

// A crash amid the renames that recycle a log segment can leave the file under its old and its new
// name. Reusing both made the second reuse overwrite the log in use.
func TestRecycledSegmentUnderTwoNamesAfterCrash(t *testing.T) {
	fs := vfs.NewMem()
	db := mustOpen(t, "data", tinyOptions(fs))
	if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	logs, err := listFiles(fs, "data", fileLog)
	if err != nil || len(logs) == 0 {
		t.Fatalf("logs %v, %v", logs, err)
	}
	if err := fs.Link(logName("data", logs[0]), logName("data", 1)); err != nil {
		t.Fatal(err)
	}
	db = mustOpen(t, "data", tinyOptions(fs))
	if err := db.Put([]byte("k"), []byte("v2"), Sync); err != nil {
		t.Fatal(err)
	}
	if err := db.Flush(); err != nil { // the next log, and the one after it made ready
		t.Fatal(err)
	}
	if err := db.Put([]byte("k"), []byte("v3"), Sync); err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	db = mustOpen(t, "data", tinyOptions(fs))
	if value, err := db.Get([]byte("k")); err != nil || string(value) != "v3" {
		t.Fatalf("got %q, %v", value, err)
	}
	mustClose(t, db)
}

// A segment of another database of the same shape was replayed: its number, its positions and its
// sequence numbers are those that the manifest expects.
func TestLogOfAnotherDatabaseIsRefused(t *testing.T) {
	fsys := vfs.NewMem()
	for _, dir := range []string{"ours", "theirs"} {
		db := mustOpen(t, dir, tinyOptions(fsys))
		if err := db.Put([]byte("k"), []byte(dir), Sync); err != nil {
			t.Fatal(err)
		}
		mustClose(t, db)
	}
	logs, err := listFiles(fsys, "ours", fileLog)
	if err != nil || len(logs) == 0 {
		t.Fatalf("logs %v, %v", logs, err)
	}
	name := logName("ours", logs[0])
	data, err := fsys.ReadFile(logName("theirs", logs[0]))
	if err != nil {
		t.Fatal(err)
	}
	if err := fsys.WriteFile(name, data); err != nil {
		t.Fatal(err)
	}
	db, err := Open("ours", tinyOptions(fsys))
	if e, ok := errors.AsType[*CorruptError](err); !ok || e.File != name {
		if err == nil {
			value, err := db.Get([]byte("k"))
			t.Fatalf("opened: %q, %v", value, err)
		}
		t.Fatal(err)
	}
	if v, err := Verify(fsys, "ours", nil); err != nil || len(v.Damages) == 0 {
		t.Errorf("Verify: %+v, %v", v, err)
	}
}

// A read-only Open of a directory that had lost CURRENT said that there was no database.
func TestReadOnlySaysThatCurrentIsMissing(t *testing.T) {
	fsys := vfs.NewMem()
	mustClose(t, mustOpen(t, "data", tinyOptions(fsys)))
	name := filepath.Join("data", currentName)
	if err := fsys.Remove(name); err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{false, true} {
		o := tinyOptions(fsys)
		o.ReadOnly = readOnly
		_, err := Open("data", o)
		if e, ok := errors.AsType[*CorruptError](err); !ok || e.File != name {
			t.Errorf("read only %v: %v", readOnly, err)
		}
	}
}

package lsm

import (
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

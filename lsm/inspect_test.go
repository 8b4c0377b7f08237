package lsm

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"testing"

	"kvd/lsm/vfs"
	"kvd/sstable"
	"kvd/sstable/offheap"
)

// inspected makes a database with a table, a hidden version, a tombstone and a log, and closes it.
func inspected(t *testing.T) (fsys *vfs.Mem, dir string) {
	t.Helper()
	fsys, dir = vfs.NewMem(), "/db"
	db, err := Open(dir, Options{FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	put := func(k, v string) {
		if err := db.Put([]byte(k), []byte(v), Sync); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1000 {
		put(fmt.Sprintf("key%04d", i), fmt.Sprintf("value %d", i))
	}
	put("apple", "old")
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	put("apple", "new")
	if err := db.Delete([]byte("apple"), Sync); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return fsys, dir
}

func TestInspectSoundDatabase(t *testing.T) {
	fsys, dir := inspected(t)
	var files []string
	v, err := Verify(fsys, dir, func(name string) { files = append(files, name) })
	if err != nil || len(v.Damages) > 0 {
		t.Fatalf("Verify: %v, damages %v", err, v.Damages)
	}
	if v.Tables != 1 || v.Entries != 1001 || v.Records != 2 || v.LastSeq != 1003 {
		t.Errorf("Verify: %+v", v)
	}
	if len(files) != v.Tables+v.Segments {
		t.Errorf("Verify saw %d files, counts %d tables and %d segments", len(files), v.Tables,
			v.Segments)
	}

	l, err := InspectLayout(fsys, dir)
	if err != nil {
		t.Fatal(err)
	}
	type version struct {
		level int
		seq   sstable.Seq
		kind  sstable.Kind
		value string
		old   bool
	}
	got := map[version]int{}
	err = l.Find(fsys, []byte("apple"), func(p Place) error {
		got[version{p.Level, p.Seq, p.Kind, string(p.Value), p.Old}]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []version{
		{0, 1001, sstable.KindPut, "old", false},
		{-1, 1002, sstable.KindPut, "new", false},
		{-1, 1003, sstable.KindDelete, "", false},
	} {
		if got[want] != 1 {
			t.Errorf("Find does not tell %+v once; it tells %+v", want, got)
		}
	}

	info, err := InspectLog(fsys, l.Logs[0], func(LogWrite) error { return nil })
	if err != nil || info.Writes != 2 || info.Records != 2 || info.Beyond != 0 ||
		info.FirstSeq != 1002 || info.LastSeq != 1003 {
		t.Errorf("InspectLog: %+v, %v", info, err)
	}
	if l.Table("000001.sst") != nil || l.Table(l.TableName(l.Tables[0])) == nil {
		t.Error("Table does not find tables by their names")
	}
}

func TestInspectRefusesWhatIsNoDatabase(t *testing.T) {
	fsys := vfs.NewMem()
	if err := fsys.MkdirAll("/empty"); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(fsys, "/empty", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
	if err := InspectManifest(fsys, filepath.Join("/empty", "x"), nil); err == nil {
		t.Error("a manifest by the name of x")
	}
	if _, err := InspectLog(fsys, "/empty/x", nil); err == nil {
		t.Error("a log by the name of x")
	}
}

// TestLookingIntoTablesKeepsNoMemory: who opens a table to look into it gives back what its filter
// and its index were moved to.
func TestLookingIntoTablesKeepsNoMemory(t *testing.T) {
	disk := vfs.NewMem()
	db := mustOpen(t, "data", Options{FS: disk, ScrubPeriod: -1})
	var b Batch
	for i := range 100_000 { // a filter of less is not worth a mapping
		b.Put(fmt.Appendf(nil, "key%06d", i), nil)
	}
	if err := db.Apply(&b, NoSync); err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	db = mustOpen(t, "data", Options{FS: disk, ScrubPeriod: -1})
	keeps := func(what string, look func() error) {
		before := offheap.Mapped()
		if err := look(); err != nil {
			t.Fatal(err)
		}
		if n := offheap.Mapped() - before; n > 0 {
			t.Errorf("%s keeps %d bytes", what, n)
		}
	}
	keeps("Scrub", func() error { _, err := db.Scrub(t.Context()); return err })
	mustClose(t, db)
	keeps("Verify", func() error { _, err := Verify(disk, "data", nil); return err })
	l, err := InspectLayout(disk, "data")
	if err != nil || len(l.Tables) == 0 {
		t.Fatal(l, err)
	}
	keeps("InspectTable", func() error {
		return l.InspectTable(disk, l.Tables[0], func(*sstable.Reader) error { return nil })
	})
}

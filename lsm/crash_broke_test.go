package lsm

import (
	"sync"
	"testing"

	"kvd/lsm/vfs"
)

// A crash amid the rename to CURRENT can leave the file under its temporary name as well. The next
// recovery wrote its CURRENT over that, and a second crash found none of the two.
func TestCurrentUnderTwoNamesAfterCrash(t *testing.T) {
	mem := vfs.NewMem()
	db := mustOpen(t, "data", tinyOptions(mem))
	if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	if err := mem.Link("data/CURRENT", "data/CURRENT.tmp"); err != nil {
		t.Fatal(err)
	}
	disk := mem.Crash(nil, vfs.KeepAll)
	var mu sync.Mutex // operations come from several goroutines
	var images []*vfs.Mem
	mustClose(t, mustOpen(t, "data", tinyOptions(vfs.NewFault(disk, func(vfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		images = append(images, disk.Crash(nil, vfs.KeepAll))
		return nil
	}))))
	for i, image := range images {
		db, err := Open("data", tinyOptions(image))
		if err != nil {
			t.Fatalf("crash before operation %d of the recovery: %v", i+1, err)
		}
		if value, err := db.Get([]byte("k")); err != nil || string(value) != "v" {
			t.Fatalf("got %q, %v", value, err)
		}
		mustClose(t, db)
	}
}

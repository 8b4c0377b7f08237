package vfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"syscall"

	"kvd/lsm/vfs"
)

// A file whose content was synced is lost with its name.
func ExampleMem_Crash() {
	disk := vfs.NewMem()
	f, err := disk.Create("f")
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("precious"), 0); err != nil {
		log.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		log.Fatal(err)
	}
	_, err = disk.Crash(nil, vfs.KeepNone).ReadFile("f")
	fmt.Println("before SyncDir, lost:", errors.Is(err, fs.ErrNotExist))

	if err := disk.SyncDir("."); err != nil {
		log.Fatal(err)
	}
	data, err := disk.Crash(nil, vfs.KeepNone).ReadFile("f")
	fmt.Printf("after: %s %v\n", data, err)
	// Output:
	// before SyncDir, lost: true
	// after: precious <nil>
}

// The third operation, whatever it is, meets a full disk.
func ExampleNewFault() {
	f := vfs.NewFault(vfs.NewMem(), func(op vfs.Op) error {
		fmt.Println(op)
		if op.N == 3 {
			return vfs.ShortWrite(2, syscall.ENOSPC)
		}
		return nil
	})
	file, _ := f.Create("f")
	_, _ = file.WriteAt([]byte("hello"), 0)
	n, err := file.WriteAt([]byte("world"), 5)
	fmt.Println(n, errors.Is(err, syscall.ENOSPC))
	_ = file.Close()
	// Output:
	// #1 Create f
	// #2 WriteAt f [0,5)
	// #3 WriteAt f [5,10)
	// 2 true
	// #4 Close f
}

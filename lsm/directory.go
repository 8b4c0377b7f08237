package lsm

import (
	"errors"
	"fmt"
	"sync"

	"kvd/lsm/vfs"
)

// directory makes the names in a directory durable for those who create and rename files there side
// by side: flushes, compactions, the log, the manifest.
//
// A sync that fails may lose what it was to make durable, and then the next one succeeds without
// it. The one who meets the error is not the only one whose names are lost. So whoever wants names
// to be durable takes a mark before it makes the first of them, and its sync fails when any sync
// has failed since the mark.
type directory struct {
	fs  vfs.FS
	dir string

	mu       sync.Mutex // one sync at a time: none succeeds beside one that fails
	failures uint64
	cause    error // of the last one
}

// directoryMark is a moment in the life of a directory.
type directoryMark uint64

var errNamesLost = errors.New("lsm: the directory failed to sync; new names in it may be lost")

func (d *directory) mark() directoryMark {
	d.mu.Lock()
	defer d.mu.Unlock()
	return directoryMark(d.failures)
}

// sync makes every name durable that was made after the mark was taken and before the call. After
// an error those names must be given up.
func (d *directory) sync(since directoryMark) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fs.SyncDir(d.dir); err != nil {
		d.failures++
		d.cause = err
		return err
	}
	if directoryMark(d.failures) != since {
		return fmt.Errorf("%w: %w", errNamesLost, d.cause)
	}
	return nil
}

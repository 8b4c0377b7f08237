//go:build !linux

package vfs

import "os"

// Sync is os.File.Sync: F_FULLFSYNC on macOS, fsync elsewhere.
func (f *osFile) Sync() error { return f.file.Sync() }

func openMedium(name string) (File, error) { return OS.Open(name) }

func (system) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}

// StartWriting does nothing where the system cannot be told.
func StartWriting(File, int64, int64) {}

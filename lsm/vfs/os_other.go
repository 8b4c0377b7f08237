//go:build !linux

package vfs

// Sync is os.File.Sync: F_FULLFSYNC on macOS, fsync elsewhere.
func (f *osFile) Sync() error { return f.file.Sync() }

// StartWriting does nothing where the system cannot be told.
func StartWriting(File, int64, int64) {}

func openMedium(name string) (File, error) { return OS.Open(name) }

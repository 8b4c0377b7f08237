//go:build !linux

package vfs

// Sync is os.File.Sync: F_FULLFSYNC on macOS, fsync elsewhere.
func (f *osFile) Sync() error { return f.file.Sync() }

//go:build !linux

package vfs

// Sync is os.File.Sync: F_FULLFSYNC on macOS, fsync elsewhere.
func (f *osFile) Sync() error { return f.file.Sync() }

func openMedium(name string) (File, error) { return OS.Open(name) }

//go:build !linux || !(amd64 || arm64)

package vfs

func noteProcessors() {}

func (f *osFile) ReadAt(p []byte, off int64) (int, error) { return f.file.ReadAt(p, off) }

func (f *osFile) WriteAt(p []byte, off int64) (int, error) { return f.file.WriteAt(p, off) }

// StartWriting does nothing where the system cannot be told.
func StartWriting(File, int64, int64) {}

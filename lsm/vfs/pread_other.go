//go:build !linux || !(amd64 || arm64)

package vfs

func noteProcessors() {}

func (f *osFile) ReadAt(p []byte, off int64) (int, error) { return f.file.ReadAt(p, off) }

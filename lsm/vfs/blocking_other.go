//go:build !linux || !(amd64 || arm64)

package vfs

import "os"

func (f *osFile) ReadAt(p []byte, off int64) (int, error) { return f.file.ReadAt(p, off) }

func (f *osFile) WriteAt(p []byte, off int64) (int, error) { return f.file.WriteAt(p, off) }

func (system) Remove(name string) error { return os.Remove(name) }

//go:build !amd64 && !arm64

package vfs

import "golang.org/x/sys/unix"

func (f *osFile) fdatasync(fd int) error { return unix.Fdatasync(fd) }

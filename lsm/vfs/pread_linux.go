//go:build amd64 || arm64

package vfs

import (
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// A goroutine that blocks in a read keeps its processor until the scheduler's monitor takes it
// away, 20 us later at best: as many reads of a disk as there are processors, and nothing else runs
// though the disk could serve more. So a read that finds more under way than there are processors
// gives its processor up before it blocks. On two cores 16 readers of a tree five times the memory
// got 58 thousand pairs a second instead of 30, and 64 readers of a file 72 thousand pages instead
// of 55 (BenchmarkReadAtDisk). It costs a read that finds the file in memory more, so the first
// ones are left as they are.
//
// Tried and lost: to ask first for what the system has in memory (preadv2 with RWF_NOWAIT), which
// needs no giving up. 64 readers of 20 GB, a quarter of it cached, got 51 thousand pairs a second
// instead of 61.
//
// The two functions are not public, but the runtime promises to keep them for gVisor, which does
// the same (runtime/proc.go).

//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

var (
	reading    atomic.Int32 // reads under way
	processors atomic.Int32
)

func noteProcessors() { processors.Store(int32(runtime.GOMAXPROCS(0))) }

func (f *osFile) ReadAt(p []byte, off int64) (int, error) {
	defer f.uses.Add(-1)
	defer reading.Add(-1)
	f.uses.Add(1) // before fd is looked at: see Close
	under, fd := reading.Add(1), f.fd.Load()
	if under <= processors.Load() || off < 0 || fd < 0 {
		return f.file.ReadAt(p, off)
	}
	n := 0
	for n < len(p) {
		rest := p[n:]
		got, errno := preadBlocking(
			uintptr(fd), unsafe.Pointer(&rest[0]), uintptr(len(rest)), off+int64(n))
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return n, &os.PathError{Op: "read", Path: f.file.Name(), Err: errno}
		}
		if got == 0 {
			return n, io.EOF
		}
		n += int(got)
	}
	return n, nil
}

// preadBlocking is pread for a goroutine that gives up its processor first. Nothing in between may
// grow the stack.
//
//go:nosplit
//go:norace
func preadBlocking(fd uintptr, p unsafe.Pointer, n uintptr, off int64) (uintptr, syscall.Errno) {
	entersyscallblock()
	got, _, errno := syscall.RawSyscall6(syscall.SYS_PREAD64, fd, uintptr(p), n, uintptr(off), 0, 0)
	exitsyscall()
	return got, errno
}

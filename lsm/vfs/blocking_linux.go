//go:build amd64 || arm64

package vfs

import (
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"kvd/lsm/procs"
)

// A goroutine that blocks in a system call keeps its processor until the scheduler's monitor takes
// it away: 20 us later at best, 20 ms when the monitor sleeps and nothing else is queued there. As
// many such calls as there are processors, and nothing else runs. So calls that are likely to block
// give their processor up before they do. That costs the wake-up of a thread.
//
//   - Small reads, when more are under way than there are processors. On two cores 16 readers of a
//     tree five times the memory got 58 thousand pairs a second instead of 30, and 64 readers of a
//     file 72 thousand pages instead of 55 (BenchmarkReadAtDisk). It costs a read that finds the
//     file in memory more, so the first ones are left as they are.
//   - Large reads and writes, syncs of as much, and having the disk begin to write: those of merges
//     and flushes, which wait for a disk that is behind. Delayed writers, whose timers were with
//     the processor, slept 20 to 30 ms instead of 0.2, in two seconds more than once.
//   - Removing a file: a table of 64 MB takes 6 ms for what is cached of it, and where the file
//     system tells the disk what is free (mount option discard) another 11.
//   - Other syncs, when the last one took long, as all do on a busy disk, and when they would keep
//     the only processor from something else than requests that wait for a sync too. Otherwise it
//     does not pay: 16 callers over a network that wait for syncs of a log got 12 % fewer, and 256
//     on one processor 15 %, since what comes during a sync is then taken piece by piece.
//
// Tried and lost: to have reads on a single processor give it up always. They may find the file in
// memory, and then 16 callers over a network got 22 thousand pairs a second instead of 68.
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

// largeBytes is where a read or write counts as one that blocks.
const largeBytes = 64 << 10

// slowSync is where a sync counts as one that takes long.
const slowSync = time.Millisecond

var (
	reading  atomic.Int32 // reads under way
	syncTook atomic.Int64 // nanoseconds, the last sync of any file
)

func (f *osFile) ReadAt(p []byte, off int64) (int, error) {
	defer f.uses.Add(-1)
	defer reading.Add(-1)
	f.uses.Add(1) // before fd is looked at: see Close
	under, fd := reading.Add(1), f.fd.Load()
	if int(under) <= procs.Now() && len(p) < largeBytes || off < 0 || fd < 0 {
		return f.file.ReadAt(p, off)
	}
	return f.transfer(syscall.SYS_PREAD64, "read", fd, p, off, io.EOF)
}

func (f *osFile) WriteAt(p []byte, off int64) (int, error) {
	f.unsynced.Add(int64(len(p)))
	if len(p) < largeBytes {
		return f.file.WriteAt(p, off)
	}
	defer f.uses.Add(-1)
	f.uses.Add(1)
	fd := f.fd.Load()
	if off < 0 || fd < 0 {
		return f.file.WriteAt(p, off)
	}
	n, err := f.transfer(syscall.SYS_PWRITE64, "write", fd, p, off, io.ErrUnexpectedEOF)
	if err == io.ErrUnexpectedEOF {
		err = &os.PathError{Op: "write", Path: f.file.Name(), Err: err}
	}
	return n, err
}

// transfer reads or writes all of p. A call that moves nothing ends it with the error stop.
func (f *osFile) transfer(
	trap uintptr, op string, fd int64, p []byte, off int64, stop error,
) (n int, err error) {
	for n < len(p) {
		rest := p[n:]
		got, errno := transferBlocking(trap,
			uintptr(fd), unsafe.Pointer(&rest[0]), uintptr(len(rest)), off+int64(n))
		switch {
		case errno == syscall.EINTR:
		case errno != 0:
			return n, &os.PathError{Op: op, Path: f.file.Name(), Err: errno}
		case got == 0:
			return n, stop
		default:
			n += int(got)
		}
	}
	return n, nil
}

func syncFileRange(fd int, off, n int64, flags int) error {
	_, errno := callBlocking(unix.SYS_SYNC_FILE_RANGE,
		uintptr(fd), uintptr(off), uintptr(n), uintptr(flags))
	if errno != 0 {
		return errno
	}
	return nil
}

// Remove leaves to os.Remove what is no file, and to say what is wrong.
func (system) Remove(name string) error {
	if path, err := syscall.BytePtrFromString(name); err == nil {
		here := unix.AT_FDCWD
		_, errno := transferBlocking(unix.SYS_UNLINKAT, uintptr(here), unsafe.Pointer(path), 0, 0)
		if errno == 0 {
			return nil
		}
	}
	return os.Remove(name)
}

func (f *osFile) fdatasync(fd int) error {
	return timedSync(unix.SYS_FDATASYNC, fd, f.unsynced.Swap(0) >= largeBytes)
}

func fsync(fd int) error { return timedSync(unix.SYS_FSYNC, fd, false) }

// inTheWay reports whether a fast sync would keep the only processor from something else.
func inTheWay() bool { return procs.Now() == 1 && !procs.Alone() }

// timedSync is fsync or fdatasync, which gives the processor up when it is likely to take long.
func timedSync(trap uintptr, fd int, large bool) error {
	call := syscall.Syscall
	if large || syncTook.Load() > int64(slowSync) || inTheWay() {
		call = syscallBlocking
	}
	began := time.Now()
	_, _, errno := call(trap, uintptr(fd), 0, 0)
	syncTook.Store(int64(time.Since(began)))
	if errno != 0 {
		return errno
	}
	return nil
}

// transferBlocking is pread, pwrite or unlinkat for a goroutine that gives up its processor first.
// Nothing in between may grow the stack.
//
//go:nosplit
//go:norace
func transferBlocking(
	trap, fd uintptr, p unsafe.Pointer, n uintptr, off int64,
) (uintptr, syscall.Errno) {
	entersyscallblock()
	got, _, errno := syscall.RawSyscall6(trap, fd, uintptr(p), n, uintptr(off), 0, 0)
	exitsyscall()
	return got, errno
}

// callBlocking is the same for a call without memory.
//
//go:nosplit
//go:norace
func callBlocking(trap, a, b, c, d uintptr) (uintptr, syscall.Errno) {
	entersyscallblock()
	got, _, errno := syscall.RawSyscall6(trap, a, b, c, d, 0, 0)
	exitsyscall()
	return got, errno
}

// syscallBlocking has the shape of syscall.Syscall.
func syscallBlocking(trap, a, b, c uintptr) (r1, r2 uintptr, errno syscall.Errno) {
	r1, errno = callBlocking(trap, a, b, c, 0)
	return r1, 0, errno
}

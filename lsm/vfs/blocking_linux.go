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
// give their processor up before they do. That costs the wake-up of a thread, and where goroutines
// compute without a pause, as readers of what is cached do, a wait for a turn: 10 ms for each two
// of them, on two processors.
//
//   - Small reads, when the last ones took long enough for the monitor to see, but for as many at
//     a time as half the processors, rounded up: the rest must not be held too. On two cores 16
//     readers of a tree five times the memory got 58 thousand pairs a second instead of 30, 64
//     readers of a file 72 thousand pages instead of 55 (BenchmarkReadAtDisk), and 64 callers over
//     a network 20 thousand pairs instead of the 13 that they got when as many as all processors
//     were left as they are. It costs a read that finds the file in memory more, so none does while
//     reads are fast, which those tell that are under way beside as many others as there are
//     processors. When all others gave way, 16 readers of what the system had in memory waited for
//     a turn at each read, and beside a writer got 20 thousand pairs a second instead of 1.9
//     million.
//   - Large reads and writes of a file whose last one took long, having the disk begin to write
//     when that took long, and large syncs: those of merges and flushes, which wait for a disk that
//     is behind. Delayed writers, whose timers were with the processor, slept 20 to 30 ms instead
//     of 0.2, in two seconds more than once. When all of them gave way, a flush waited for 300
//     turns, and a write beside two busy readers took 10 us instead of 1.4
//     (BenchmarkPutBesideReaders of lsm). Reads past the system's memory always give way.
//   - Removing a file: a table of 64 MB takes 6 ms for what is cached of it, and where the file
//     system tells the disk what is free (mount option discard) another 11.
//   - Other syncs, when the last one took long, as all do on a busy disk, and when they would keep
//     the only processor from something else than requests that wait for a sync too. Otherwise it
//     does not pay: 16 callers over a network that wait for syncs of a log got 12 % fewer, and 256
//     on one processor 15 %, since what comes during a sync is then taken piece by piece.
//
// How long a call took is what the system took for it, without the wait for a turn.
//
// Tried and lost: to have reads on a single processor give it up always. They may find the file in
// memory, and then 16 callers over a network got 22 thousand pairs a second instead of 68.
//
// Tried and lost: to ask first for what the system has in memory (preadv2 with RWF_NOWAIT), which
// needs no giving up. 64 readers of 20 GB, a quarter of it cached, got 51 thousand pairs a second
// instead of 61.
//
// Tried and lost: to have all small reads give way whenever the last ones were slow. One reader
// beside a writer at full speed, who waits for the turns of writer, flush and merges at each read
// then, got 500 pairs a second instead of 2800. And to time all: two readers of cached files got
// 8 % fewer. And to count only those that are left as they are: two readers beside a writer got 110
// thousand instead of 79, but 16 and 64 alone, of a tree four times the memory, 32 instead of 42.
//
// The three functions are not public, but the runtime promises to keep them for gVisor, which does
// the same (runtime/proc.go).

//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// largeBytes is where a read or write counts as one that may block.
const largeBytes = 64 << 10

const (
	// slowSync is where a sync counts as one that took long, and with one processor all else.
	slowSync = time.Millisecond
	// slowTransfer is where a large read or write does, and having the disk begin to write. Memory
	// that a virtual machine has to get from its host first makes a write of 256 KiB take a
	// millisecond, and the turn of another thread, which there is when this one gives way, three.
	slowTransfer = 5 * time.Millisecond
	// slowRead is where small reads do: the monitor looks every 20 us at most.
	slowRead = 20 * time.Microsecond
)

var (
	reading   atomic.Int32 // small reads under way, or waiting for a turn after that
	readTook  atomic.Int64 // nanoseconds, the last small reads of many at once, averaged
	syncTook  atomic.Int64 // nanoseconds, the last sync of any file
	startTook atomic.Int64 // nanoseconds, the last time that the disk was told to begin
)

// tookLong reports whether what the last one took is long, for all but syncs and small reads.
func tookLong(last int64) bool {
	if procs.Now() == 1 {
		return last > int64(slowSync)
	}
	return last > int64(slowTransfer)
}

// leaves reports whether a small read is left as it is, neither timed nor made to give way, when it
// would be the nth, with so many processors, and after reads that took long.
func leaves(nth, processors int, slow bool) bool {
	if slow {
		return nth <= (processors+1)/2
	}
	return nth <= processors
}

func (f *osFile) ReadAt(p []byte, off int64) (int, error) {
	defer f.uses.Add(-1)
	f.uses.Add(1) // before fd is looked at: see Close
	fd := f.fd.Load()
	if off < 0 || fd < 0 || len(p) == 0 {
		return f.file.ReadAt(p, off)
	}
	if len(p) < largeBytes && !f.direct {
		defer reading.Add(-1)
		if leaves(int(reading.Add(1)), procs.Now(), readTook.Load() > int64(slowRead)) {
			return f.file.ReadAt(p, off)
		}
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
		c := call{trap: trap, a: uintptr(fd), p: unsafe.Pointer(&rest[0]), c: uintptr(len(rest)),
			d: uintptr(off + int64(n))}
		var errno syscall.Errno
		if len(p) >= largeBytes || f.direct {
			c.gives = f.direct || tookLong(f.took.Load())
			errno = c.do()
			f.took.Store(int64(c.took))
		} else {
			c.gives = readTook.Load() > int64(slowRead)
			errno = c.do()
			readTook.Store(meanRead(readTook.Load(), c.took))
			if c.took > slowRead {
				procs.Waited()
			}
		}
		switch {
		case errno == syscall.EINTR:
		case errno != 0:
			return n, &os.PathError{Op: op, Path: f.file.Name(), Err: errno}
		case c.result == 0:
			return n, stop
		default:
			n += int(c.result)
		}
	}
	return n, nil
}

// meanRead is the mean of small reads after one more. One that was preempted, or found the disk
// busy for once, does not make those after it give way; two in a row do.
func meanRead(mean int64, took time.Duration) int64 {
	return mean + (int64(min(took, 4*slowRead))-mean)/8
}

func syncFileRange(fd int, off, n int64, flags int) error {
	c := call{trap: unix.SYS_SYNC_FILE_RANGE, a: uintptr(fd), b: uintptr(off), c: uintptr(n),
		d: uintptr(flags), gives: tookLong(startTook.Load())}
	errno := c.do()
	startTook.Store(int64(c.took))
	if errno != 0 {
		return errno
	}
	return nil
}

// Remove leaves to os.Remove what is no file, and to say what is wrong.
func (system) Remove(name string) error {
	if path, err := syscall.BytePtrFromString(name); err == nil {
		here := unix.AT_FDCWD
		c := call{trap: unix.SYS_UNLINKAT, a: uintptr(here), p: unsafe.Pointer(path), gives: true}
		if c.do() == 0 {
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
	c := call{trap: trap, a: uintptr(fd)}
	c.gives = large || syncTook.Load() > int64(slowSync) || inTheWay()
	errno := c.do()
	syncTook.Store(int64(c.took))
	if errno != 0 {
		return errno
	}
	return nil
}

// call is a system call and how to do it.
type call struct {
	trap, a, b, c, d uintptr
	p                unsafe.Pointer // or b
	gives            bool           // the processor up first

	result uintptr
	took   time.Duration // in the system
}

const clock = unix.SYS_CLOCK_GETTIME

// do makes the call and sets result and took.
func (c *call) do() syscall.Errno {
	if c.gives {
		return c.give()
	}
	return c.keep()
}

// give is the call of a goroutine that gives its processor up. Between entering and leaving nothing
// may grow the stack, the clock is the system's own, since time.Now is for goroutines that have a
// processor, and there is no branch and no function of ours: where coverage is counted with the
// race detector, each needs one too. It calls the runtime by name, not through a variable, so that
// the linker sees whether the stack is enough.
//
//go:nosplit
//go:norace
//go:noinline
func (c *call) give() (errno syscall.Errno) {
	var began, ended unix.Timespec
	from, to := uintptr(unsafe.Pointer(&began)), uintptr(unsafe.Pointer(&ended))
	b := c.b | uintptr(c.p)
	entersyscallblock()
	_, _, _ = syscall.RawSyscall6(clock, unix.CLOCK_MONOTONIC, from, 0, 0, 0, 0)
	c.result, _, errno = syscall.RawSyscall6(c.trap, c.a, b, c.c, c.d, 0, 0)
	_, _, _ = syscall.RawSyscall6(clock, unix.CLOCK_MONOTONIC, to, 0, 0, 0, 0)
	exitsyscall()
	c.took = time.Duration(ended.Nano() - began.Nano())
	return errno
}

// keep is the call of one that keeps it, unless the monitor takes it away. All but the entering is
// that of give once more: what they share cannot be a function, nor a branch of one.
//
//go:nosplit
//go:norace
//go:noinline
func (c *call) keep() (errno syscall.Errno) {
	var began, ended unix.Timespec
	from, to := uintptr(unsafe.Pointer(&began)), uintptr(unsafe.Pointer(&ended))
	b := c.b | uintptr(c.p)
	entersyscall()
	_, _, _ = syscall.RawSyscall6(clock, unix.CLOCK_MONOTONIC, from, 0, 0, 0, 0)
	c.result, _, errno = syscall.RawSyscall6(c.trap, c.a, b, c.c, c.d, 0, 0)
	_, _, _ = syscall.RawSyscall6(clock, unix.CLOCK_MONOTONIC, to, 0, 0, 0, 0)
	exitsyscall()
	c.took = time.Duration(ended.Nano() - began.Nano())
	return errno
}

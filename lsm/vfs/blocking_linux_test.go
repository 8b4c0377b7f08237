//go:build amd64 || arm64

package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kvd/lsm/procs"
)

// TestReadAtBesideManyReads reads the same file from far more goroutines than there are
// processors, with garbage collections in between: every read gives what is there, at the end and
// beyond it too, and a closed file an error.
func TestReadAtBesideManyReads(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	want := make([]byte, 1<<20+123)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range want {
		want[i] = byte(r.Uint32())
	}
	must(t, os.WriteFile(name, want, 0o644))
	f, err := OS.Open(name)
	must(t, err)
	defer func() { reading.Store(0); readTook.Store(0) }()
	for _, others := range []int32{0, 1000} { // as if so many were under way
		reading.Add(others)
		var wg sync.WaitGroup
		for g := range 16 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(g), 3))
				for range 300 {
					off, p := r.Int64N(int64(len(want))+10), make([]byte, r.IntN(9000))
					readTook.Store(int64(time.Duration(others) * time.Second)) // who is slow gives way
					n, err := f.ReadAt(p, off)
					from := min(off, int64(len(want)))
					left := want[from:min(from+int64(len(p)), int64(len(want)))]
					end := error(nil)
					if len(left) < len(p) {
						end = io.EOF
					}
					if !bytes.Equal(p[:n], left) || err != end {
						t.Errorf("%d bytes at %d: %d, %v", len(p), off, n, err)
						return
					}
					if r.IntN(100) == 0 {
						runtime.GC()
					}
				}
			})
		}
		wg.Wait()
	}
	must(t, f.Close())
	if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read of a closed file: %v", err)
	}
}

// TestReadsLeaveProcessors: while reads wait for a disk, they hold no more than half of the
// processors, rounded up, so that one goroutine that reads never waits for a turn.
func TestReadsLeaveProcessors(t *testing.T) {
	for _, c := range []struct{ processors, fast, slow int }{
		{1, 1, 1}, {2, 2, 1}, {3, 3, 2}, {4, 4, 2}, {64, 64, 32},
	} {
		for nth := 1; nth <= 2*c.processors; nth++ {
			if got := leaves(nth, c.processors, false); got != (nth <= c.fast) {
				t.Errorf("read %d of %d processors: left as it is %v", nth, c.processors, got)
			}
			if got := leaves(nth, c.processors, true); got != (nth <= c.slow) {
				t.Errorf("slow read %d of %d processors: left as it is %v", nth, c.processors, got)
			}
		}
	}

	name := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(name, []byte("x"), 0o644))
	f, err := OS.Open(name)
	must(t, err)
	defer f.Close()
	defer func() { reading.Store(0); readTook.Store(0) }()
	for others := range 2 * procs.Now() {
		reading.Store(int32(others))
		readTook.Store(int64(time.Hour))
		_, err := f.ReadAt(make([]byte, 1), 0)
		must(t, err)
		timed := readTook.Load() != int64(time.Hour)
		if timed == leaves(others+1, procs.Now(), true) || reading.Load() != int32(others) {
			t.Errorf("a read beside %d others is timed %v; %d after it", others, timed, reading.Load())
		}
	}
	for n := 0; readTook.Load() > int64(slowRead); n++ { // only those that are timed can tell
		if _, err := f.ReadAt(make([]byte, 1), 0); err != nil || n == 1e6 {
			t.Fatalf("after %d reads of what is in memory they are slow: %v", n, err)
		}
	}
}

// TestLargeTransfers: reads and writes that give their processor up, because the last ones took an
// hour, and such that do not mean what small ones do.
func TestLargeTransfers(t *testing.T) {
	defer func() { startTook.Store(0); syncTook.Store(0) }()
	for _, last := range []time.Duration{0, time.Hour} {
		t.Run(last.String(), func(t *testing.T) { largeTransfers(t, int64(last)) })
	}
}

func largeTransfers(t *testing.T, last int64) {
	name := filepath.Join(t.TempDir(), "f")
	f, err := OS.Create(name)
	must(t, err)
	tookSoLong := func() {
		f.(*osFile).took.Store(last)
		startTook.Store(last)
		syncTook.Store(last)
	}
	want := make([]byte, 5*largeBytes+7)
	for i := range want {
		want[i] = byte(i / 251)
	}
	var wg sync.WaitGroup
	for g := range 5 { // each a part; the last one has 7 bytes more
		wg.Go(func() {
			part := want[g*largeBytes:]
			if g < 4 {
				part = part[:largeBytes]
			}
			tookSoLong()
			n, err := f.WriteAt(part, int64(g*largeBytes))
			if n != len(part) || err != nil {
				t.Errorf("part %d: %d, %v", g, n, err)
			}
			tookSoLong()
			StartWriting(f, int64(g*largeBytes), int64(n))
			tookSoLong()
			if err := f.Sync(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := make([]byte, len(want)+largeBytes)
	tookSoLong()
	n, err := f.ReadAt(got, 0)
	if !bytes.Equal(got[:n], want) || err != io.EOF {
		t.Errorf("%d of %d bytes, %v", n, len(want), err)
	}
	tookSoLong()
	if n, err := f.ReadAt(got[:largeBytes], int64(len(want))); n != 0 || err != io.EOF {
		t.Errorf("behind the end: %d, %v", n, err)
	}
	read, err := OS.Open(name)
	must(t, err)
	n, err = read.WriteAt(want, 0)
	if e, ok := errors.AsType[*os.PathError](err); n != 0 || !ok || e.Err != unix.EBADF {
		t.Errorf("writing to a file opened for reading: %d, %v", n, err)
	}
	if _, err := f.WriteAt(want, -1); err == nil {
		t.Error("a write before the beginning")
	}
	must(t, read.Close())
	must(t, f.Close())
	if n, err := f.WriteAt(want, 0); n != 0 || !errors.Is(err, os.ErrClosed) {
		t.Errorf("writing to a closed file: %d, %v", n, err)
	}
	if n, err := f.ReadAt(got, 0); n != 0 || !errors.Is(err, os.ErrClosed) {
		t.Errorf("reading a closed file: %d, %v", n, err)
	}
	if err := f.Sync(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("syncing a closed file: %v", err)
	}
}

// BenchmarkReadAtDisk reads pages at random that are not in memory.
func BenchmarkReadAtDisk(b *testing.B) {
	const pages = 1 << 17
	name := filepath.Join(b.TempDir(), "f")
	made, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	for range pages * 4096 / len(chunk) {
		_, _ = rand.NewChaCha8([32]byte{}).Read(chunk)
		if _, err := made.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(made.Sync(), made.Close()); err != nil {
		b.Fatal(err)
	}
	opened, err := OS.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer opened.Close()
	f := opened.(*osFile)
	for _, readers := range []int{1, 16, 64} {
		for kind, read := range map[string]func([]byte, int64) (int, error){
			"gives way": f.ReadAt, "os.File": f.file.ReadAt,
		} {
			b.Run(fmt.Sprintf("readers=%d/%s", readers, kind), func(b *testing.B) {
				if err := unix.Fadvise(int(f.fd.Load()), 0, 0, unix.FADV_DONTNEED); err != nil {
					b.Fatal(err)
				}
				_ = unix.Fadvise(int(f.fd.Load()), 0, 0, unix.FADV_RANDOM)
				var wg sync.WaitGroup
				for g := range readers {
					wg.Go(func() {
						p := make([]byte, 4096)
						for i := g; i < b.N; i += readers {
							if _, err := read(p, int64(i*7919%pages)*4096); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}

// TestSyncInTheWay: a fast sync gives up the only processor, and only that, when there was something
// else to do since the last one.
func TestSyncInTheWay(t *testing.T) {
	defer func(n int) { runtime.GOMAXPROCS(n); procs.All() }(runtime.GOMAXPROCS(0))
	for _, n := range []int{1, 2} {
		runtime.GOMAXPROCS(n)
		procs.All()
		procs.Alone()
		if inTheWay() {
			t.Errorf("%d processors, nothing else to do: in the way", n)
		}
		procs.Other()
		if got := inTheWay(); got != (n == 1) {
			t.Errorf("%d processors, something else to do: in the way %v", n, got)
		}
		if inTheWay() {
			t.Errorf("%d processors, the second sync: in the way", n)
		}
	}
}

// TestWhoGivesWay: what took long for one processor is not for two.
func TestWhoGivesWay(t *testing.T) {
	defer func(n int) { runtime.GOMAXPROCS(n); procs.All() }(runtime.GOMAXPROCS(0))
	for _, c := range []struct {
		processors int
		last       time.Duration
		want       bool
	}{
		{1, slowSync, false}, {1, slowSync + 1, true},
		{2, slowSync + 1, false}, {2, slowTransfer, false}, {2, slowTransfer + 1, true},
	} {
		runtime.GOMAXPROCS(c.processors)
		procs.All()
		if got := tookLong(int64(c.last)); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	mean := int64(2 * time.Microsecond)
	for i, want := range []bool{false, true} { // a read of a second, and another
		if mean = meanRead(mean, time.Second); mean > int64(slowRead) != want {
			t.Errorf("slow read %d: the mean is %v", i, time.Duration(mean))
		}
	}
	for mean > int64(slowRead) {
		before := mean
		if mean = meanRead(mean, 2*time.Microsecond); mean >= before {
			t.Fatalf("fast reads leave the mean at %v", time.Duration(mean))
		}
	}
	f, err := openMedium(os.Args[0])
	must(t, err)
	if m, ok := f.(mediumFile); ok && !m.direct {
		t.Error("a read past the page cache is taken for one that does not wait")
	}
	must(t, f.Close())
}

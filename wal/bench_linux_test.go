package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// dataSyncFile syncs as the engine does.
type dataSyncFile struct{ *os.File }

func (f dataSyncFile) Sync() error { return syscall.Fdatasync(int(f.Fd())) }

// benchWriter returns a writer to a real file, prewritten to the given size.
func benchWriter(b *testing.B, prewritten int64) *Writer {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "000001.wal"))
	if err != nil {
		b.Fatal(err)
	}
	h := Header{Segment: 1, Nonce: 7, Prewritten: prewritten}
	for off := int64(0); off < prewritten; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:], off); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	if err := WriteHeader(dataSyncFile{f}, h); err != nil {
		b.Fatal(err)
	}
	w := NewWriter(dataSyncFile{f}, h, 0)
	b.Cleanup(func() {
		if err := w.Close(); err != nil {
			b.Error(err)
		}
	})
	return w
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{20, 120, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			w := benchWriter(b, 0)
			rec := make([]byte, size)
			b.ReportAllocs()
			for b.Loop() {
				w.Append(rec)
				if len(w.buf) > 128<<10 { // as if it had been written
					w.buf = w.buf[:frameHeadroom]
					w.written.Store(uint64(w.end))
					w.durable.Store(uint64(w.end))
				}
			}
		})
	}
}

func BenchmarkAppendWrite(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			benchGroup(b, benchWriter(b, 0), writers, (*Writer).Write)
		})
	}
}

func BenchmarkSync(b *testing.B) {
	for _, prewritten := range []int64{0, 64 << 20} {
		for _, writers := range []int{1, 16, 64, 256} {
			name := fmt.Sprintf("prewritten=%dM/writers=%d", prewritten>>20, writers)
			b.Run(name, func(b *testing.B) {
				benchGroup(b, benchWriter(b, prewritten), writers, (*Writer).Sync)
			})
		}
	}
}

// BenchmarkSyncEvicted is for a recycled file that the page cache no longer holds.
func BenchmarkSyncEvicted(b *testing.B) {
	w := benchWriter(b, 64<<20)
	const dontNeed = 4
	fd := w.seg.file.(dataSyncFile).Fd()
	if _, _, err := syscall.Syscall6(syscall.SYS_FADVISE64, fd, 0, 0, dontNeed, 0, 0); err != 0 {
		b.Fatal(err)
	}
	rec := make([]byte, 3000)
	for b.Loop() {
		if err := w.Sync(w.Append(rec)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSyncBusy has 64 writers on a machine whose processors never idle.
func BenchmarkSyncBusy(b *testing.B) {
	var stop atomic.Bool
	var spinners sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		spinners.Go(func() {
			for x := uint64(1); !stop.Load(); {
				for range 1000 {
					x ^= x << 13
					x ^= x >> 7
				}
			}
		})
	}
	benchGroup(b, benchWriter(b, 64<<20), 64, (*Writer).Sync)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	stop.Store(true)
	spinners.Wait()
}

// BenchmarkRecover replays 64 MiB in frames of 64 records, and looks for more in 64 MiB of zeros.
func BenchmarkRecover(b *testing.B) {
	f := &fakeFile{}
	h := Header{Segment: 1, Nonce: 7}
	if err := WriteHeader(f, h); err != nil {
		b.Fatal(err)
	}
	w := NewWriter(f, h, 0)
	for w.End() < 64<<20 {
		for range 64 {
			w.Append(make([]byte, 120))
		}
		if err := w.Write(NoPos); err != nil {
			b.Fatal(err)
		}
	}
	full := segmentOf(1, f.data)
	zero := segmentOf(1, append(f.data[:HeaderBytes:HeaderBytes], make([]byte, 64<<20)...))
	for name, s := range map[string]Segment{"replay": full, "search": zero} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(s.Size)
			for b.Loop() {
				_, err := Recover([]Segment{s}, 0, func([]byte) error { return nil })
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// benchGroup has each of the writers append and wait, b.N times together.
func benchGroup(b *testing.B, w *Writer, writers int, wait func(*Writer, Pos) error) {
	rec := make([]byte, 120)
	var left atomic.Int64
	left.Store(int64(b.N))
	var done sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range writers {
		done.Go(func() {
			for left.Add(-1) >= 0 {
				if err := wait(w, w.Append(rec)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	done.Wait()
	b.StopTimer()
	m := w.Metrics()
	if m.Syncs > 0 {
		b.ReportMetric(float64(m.Records)/float64(m.Syncs), "records/sync")
	}
	b.ReportMetric(float64(m.Records)/float64(m.Frames), "records/frame")
}

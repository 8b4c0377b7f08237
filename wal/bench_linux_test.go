package wal

import (
	"fmt"
	"os"
	"path/filepath"
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
	for _, prewritten := range []int64{0, 256 << 20} {
		for _, writers := range []int{1, 16, 64, 256} {
			b.Run(fmt.Sprintf("prewritten=%dM/writers=%d", prewritten>>20, writers), func(b *testing.B) {
				benchGroup(b, benchWriter(b, prewritten), writers, (*Writer).Sync)
			})
		}
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

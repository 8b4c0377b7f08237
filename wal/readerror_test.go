package wal

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
)

// failOnce fails one read, the left-th from now, and no other.
type failOnce struct {
	bytesAt
	left *atomic.Int64
}

func (f failOnce) ReadAt(p []byte, off int64) (int, error) {
	if f.left.Add(-1) == 0 {
		return 0, syscall.EIO
	}
	return f.bytesAt.ReadAt(p, off)
}

// One read that fails, and would not fail again, is never the end of the log: neither amid the
// frames, nor in the search for frames beyond the end.
func TestSingleReadErrorIsNoEnd(t *testing.T) {
	var segs []Segment
	var left atomic.Int64
	var w *Writer
	for number := range uint64(2) {
		h := Header{Segment: number + 1, Nonce: 3 * number}
		f := newFake(t, h, nil)
		if w == nil {
			w = NewWriter(f, h, 0)
		} else {
			w.Rotate(f, h)
		}
		for i := range 8 {
			rec := append(fmt.Appendf(nil, "%d.%d:", number, i), bytes.Repeat([]byte{'r'}, 400<<10)...)
			if err := w.Write(w.Append(rec)); err != nil { // nothing is vouched for by a sync
				t.Fatal(err)
			}
		}
		segs = append(segs, segmentOf(number+1, f.data))
	}
	torn := bytes.Clone(segs[1].R.(bytesAt))
	torn[HeaderBytes+500<<10] ^= 1 // the second frame: those behind it are looked for
	for want, segs := range map[int][]Segment{
		16: {segs[0], segs[1]},
		9:  {segs[0], segmentOf(2, torn)},
	} {
		for i := range segs {
			segs[i].R = failOnce{segs[i].R.(bytesAt), &left}
		}
		reads := int64(0)
		for {
			reads++
			left.Store(reads)
			res, err := Recover(segs, 0, func([]byte) error { return nil })
			if left.Load() > 0 { // there are fewer reads than that
				if err != nil || res.Records != want {
					t.Fatalf("without an error: %+v, %v", res, err)
				}
				break
			}
			if !errors.Is(err, syscall.EIO) {
				t.Fatalf("read %d failed: %+v, %v", reads, res, err)
			}
		}
		if reads < 10 {
			t.Fatalf("only %d reads", reads)
		}
	}
}

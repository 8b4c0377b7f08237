package wal

import (
	"errors"
	"slices"
	"testing"
)

// A segment of another log with the same numbers and positions was replayed as if it were ours.
func TestSegmentOfAnotherLog(t *testing.T) {
	for _, log := range []uint64{0, 7, 8} {
		h := Header{Segment: 1, Nonce: 5, Log: log}
		f := newFake(t, h, nil)
		w := NewWriter(f, h, 0)
		w.Append([]byte("theirs"))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		s := segmentOf(1, f.synced)
		s.Log = 7
		recs, _, err := replay(0, s)
		_, corrupt := errors.AsType[*CorruptError](err)
		if corrupt != (log != 7) || len(recs) > 0 != (log == 7) {
			t.Errorf("log %d taken for log 7: %q, %v", log, recs, err)
		}
	}
}

// VerifyHeader finds every byte of a header page that is not as written; a Reader needs one copy.
func TestVerifyHeader(t *testing.T) {
	h := Header{Segment: 3, Nonce: 5, Log: 9}
	data := newFake(t, h, nil).synced
	if err := VerifyHeader(segmentOf(3, data)); err != nil {
		t.Fatal(err)
	}
	for at := range data {
		bad := slices.Clone(data)
		bad[at] ^= 0x20
		err := VerifyHeader(segmentOf(3, bad))
		c, ok := errors.AsType[*CorruptError](err)
		if !ok || c.Segment != 3 || c.Offset > int64(at) || int64(at) >= c.Offset+headerCopy {
			t.Fatalf("byte %d: %v", at, err)
		}
		if _, err := NewReader(segmentOf(3, bad)); err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
	for _, size := range []int{0, 40, headerCopy, HeaderBytes - 1} {
		if err := VerifyHeader(segmentOf(3, data[:size])); err == nil {
			t.Errorf("%d bytes are a header page", size)
		}
	}
}

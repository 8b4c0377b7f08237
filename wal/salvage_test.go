package wal

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// salvageLog returns the records that Salvage finds, and the gaps.
func salvageLog(t *testing.T, segs []Segment, start, end Pos) (recs []string, gaps []Gap, x Pos) {
	t.Helper()
	x, err := Salvage(segs, start, end, func(_ uint64, f Frame) error {
		for p := f.Payload; len(p) > 0; {
			rec, rest, ok := NextRecord(p)
			if !ok {
				t.Fatal("a broken record")
			}
			recs, p = append(recs, string(rec)), rest
		}
		return nil
	}, func(g Gap) error {
		gaps = append(gaps, g)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return recs, gaps, x
}

// TestSalvageAroundEveryFrame damages one frame at a time: all others are found, and the gap is at
// its place.
func TestSalvageAroundEveryFrame(t *testing.T) {
	l := buildLog(t, 3, 5, true)
	last := l.frames[len(l.frames)-1]
	recs, gaps, x := salvageLog(t, l.segs, 1000, NoPos)
	if !slices.Equal(recs, l.recs) || len(gaps) != 0 || x != last.pos {
		t.Fatalf("sound: %d records, gaps %v, end %d", len(recs), gaps, x)
	}
	before, pos := 0, Pos(1000)
	for i, f := range l.frames {
		data := make([]byte, l.segs[f.seg].Size)
		if _, err := l.segs[f.seg].R.ReadAt(data, 0); err != nil {
			t.Fatal(err)
		}
		data[f.off+int64(i)%frameHeaderBytes] ^= 4
		what := fmt.Sprintf("frame %d at offset %d of segment %d", i, f.off, f.seg+1)
		recs, gaps, x := salvageLog(t, l.with(f.seg, data), 1000, NoPos)
		want := slices.Concat(l.recs[:before], l.recs[f.recs:])
		if !slices.Equal(recs, want) || x != last.pos && f != last {
			t.Fatalf("%s: %d records, want %d; end %d", what, len(recs), len(want), x)
		}
		gap := Gap{uint64(f.seg + 1), f.off, pos, f.pos}
		if f.pos != pos && !slices.Equal(gaps, []Gap{gap}) {
			t.Fatalf("%s: %+v, want %+v", what, gaps, gap)
		}
		recs, _, _ = salvageLog(t, l.with(f.seg, data), NoPos, NoPos)
		if !slices.Equal(recs, want) {
			t.Fatalf("%s, start unknown: %d records, want %d", what, len(recs), len(want))
		}
		before, pos = f.recs, f.pos
	}
}

func TestSalvageBounds(t *testing.T) {
	l := buildLog(t, 2, 4, false)
	mid := l.frames[2]
	recs, gaps, _ := salvageLog(t, l.segs, mid.pos, NoPos)
	if !slices.Equal(recs, l.recs[mid.recs:]) || len(gaps) != 0 {
		t.Errorf("from %d: %d records, %v", mid.pos, len(recs), gaps)
	}
	recs, gaps, x := salvageLog(t, l.segs, 1000, mid.pos)
	if !slices.Equal(recs, l.recs[:mid.recs]) || len(gaps) != 0 || x != mid.pos {
		t.Errorf("up to %d: %d records, %v", mid.pos, len(recs), gaps)
	}
	recs, gaps, _ = salvageLog(t, l.segs[1:], 1000, NoPos)
	if first := l.frames[3]; !slices.Equal(recs, l.recs[first.recs:]) || len(gaps) != 1 ||
		gaps[0].From != 1000 || gaps[0].To != first.pos {
		t.Errorf("without the first segment: %d records, %+v", len(recs), gaps)
	}
	if _, gaps, x := salvageLog(t, nil, 1000, NoPos); len(gaps) != 0 || x != 1000 {
		t.Errorf("without segments: %+v, %d", gaps, x)
	}
}

// What a crash left behind a torn frame is not part of the log once a later segment began there.
func TestSalvageLeavesOutWhatRecoveryTrimmed(t *testing.T) {
	old := buildLog(t, 1, 5, false)
	cut := old.frames[2]
	h := Header{Segment: 2, Nonce: 99}
	f := newFake(t, h, nil)
	w := NewWriter(f, h, cut.pos)
	if err := w.Sync(w.Append([]byte("after the recovery"))); err != nil {
		t.Fatal(err)
	}
	segs := []Segment{old.segs[0], segmentOf(2, f.synced)}
	recs, gaps, _ := salvageLog(t, segs, 1000, NoPos)
	want := append(slices.Clone(old.recs[:cut.recs]), "after the recovery")
	if !slices.Equal(recs, want) || len(gaps) != 0 {
		t.Errorf("got %q, gaps %v", recs, gaps)
	}
}

func TestReadHeader(t *testing.T) {
	l := buildLog(t, 3, 1, false)
	for i, s := range l.segs {
		for _, damaged := range []int{-1, 0, headerTwin} {
			data := make([]byte, s.Size)
			if _, err := s.R.ReadAt(data, 0); err != nil {
				t.Fatal(err)
			}
			if damaged >= 0 {
				clear(data[damaged : damaged+headerCopy])
			}
			n := segmentOf(0, data)
			h, err := ReadHeader(n.R, n.Size)
			if err != nil || h.Segment != uint64(i+1) {
				t.Errorf("segment %d: %+v, %v", i+1, h, err)
			}
			clear(data[:HeaderBytes])
			n = segmentOf(0, data)
			if _, err := ReadHeader(n.R, n.Size); !isCorruptHeader(err) {
				t.Errorf("without a header: %v", err)
			}
		}
	}
}

func isCorruptHeader(err error) bool {
	_, ok := errors.AsType[*CorruptError](err)
	return ok
}

package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// testLog is a log built by hand, with what is known of it.
type testLog struct {
	recs  []string
	segs  []Segment
	files []*fakeFile
	// For each frame: its segment index, where it stands, where it ends, and how many records are
	// replayed once it is.
	frames []testFrame
}

type testFrame struct {
	seg      int
	off, end int64
	recs     int
	pos      Pos // after it
}

// buildLog syncs groups of records, some per segment. closed says how it ends.
func buildLog(t testing.TB, segments, groups int, closed bool) *testLog {
	t.Helper()
	l := &testLog{}
	var w *Writer
	for s := range segments {
		h := Header{Segment: uint64(s + 1), Nonce: uint64(s) * 77}
		f := newFake(t, h, nil)
		l.files = append(l.files, f)
		if w == nil {
			w = NewWriter(f, h, 1000)
		} else {
			w.Rotate(f, h)
		}
		for g := range groups {
			off := w.seg.off
			for i := range g%3 + 1 {
				rec := strings.Repeat(fmt.Sprintf("%d.%d.%d,", s, g, i), 1+g*i)
				l.recs = append(l.recs, rec)
				w.Append([]byte(rec))
			}
			if err := w.Sync(NoPos); err != nil {
				t.Fatal(err)
			}
			l.frames = append(l.frames, testFrame{s, off, w.seg.off, len(l.recs), w.End()})
		}
	}
	if closed {
		off := w.seg.off
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		l.frames = append(l.frames, testFrame{segments - 1, off, w.seg.off, len(l.recs), w.End()})
	}
	for i, f := range l.files {
		end := l.frames[len(l.frames)-1].end
		for _, fr := range l.frames {
			if fr.seg == i {
				end = fr.end
			}
		}
		l.segs = append(l.segs, segmentOf(uint64(i+1), f.synced[:(end+pageBytes)&^(pageBytes-1)]))
	}
	return l
}

// with returns the segments with the data of one replaced.
func (l *testLog) with(i int, data []byte) []Segment {
	segs := slices.Clone(l.segs)
	segs[i] = segmentOf(segs[i].Number, data)
	return segs
}

func isPrefix(got, all []string) bool {
	return len(got) <= len(all) && slices.Equal(got, all[:len(got)])
}

func TestCutAtEveryByte(t *testing.T) {
	l := buildLog(t, 1, 7, true)
	data := []byte(l.segs[0].R.(bytesAt))
	for cut := range data {
		want, end := 0, Pos(1000)
		for _, f := range l.frames {
			if f.end <= int64(cut) {
				want, end = f.recs, f.pos
			}
		}
		recs, res, err := replay(1000, l.with(0, data[:cut])...)
		if cut < headerCopy {
			if _, ok := errors.AsType[*CorruptError](err); !ok {
				t.Fatalf("cut at %d, in the header: %v", cut, err)
			}
			continue
		}
		if err != nil || res.End != end || len(recs) != want || !isPrefix(recs, l.recs) {
			t.Fatalf("cut at %d: %d records, %+v, %v", cut, len(recs), res, err)
		}
	}
}

func TestFlipEveryByte(t *testing.T) {
	for _, closed := range []bool{false, true} {
		l := buildLog(t, 2, 5, closed)
		last := l.frames[len(l.frames)-1]
		for s := range l.segs {
			data := slices.Clone([]byte(l.segs[s].R.(bytesAt)))
			for at := range data {
				data[at] ^= 1 << (at % 8)
				recs, res, err := replay(1000, l.with(s, data)...)
				data[at] ^= 1 << (at % 8)

				if !isPrefix(recs, l.recs) {
					t.Fatalf("flip in segment %d at %d: wrong records %q", s, at, recs)
				}
				inFrame := int64(at) >= HeaderBytes
				if inFrame {
					inFrame = slices.ContainsFunc(l.frames, func(f testFrame) bool {
						return f.seg == s && f.off <= int64(at) && int64(at) < f.end
					})
				}
				inLast := inFrame && s == last.seg && int64(at) >= last.off
				switch {
				case inLast:
					// Nothing vouches for the last frame.
					if err != nil || len(recs) < l.frames[len(l.frames)-2].recs {
						t.Fatalf("flip in the last frame at %d: %d records, %v", at, len(recs), err)
					}
				case inFrame:
					c, ok := errors.AsType[*CorruptError](err)
					if !ok {
						t.Fatalf("flip in segment %d at %d: %+v, %v", s, at, res, err)
					}
					if c.Segment != uint64(s+1) || c.Offset > int64(at) {
						t.Fatalf("flip in segment %d at %d: %v", s, at, err)
					}
				default:
					if err != nil || len(recs) != len(l.recs) {
						t.Fatalf("flip outside frames, segment %d at %d: %v", s, at, err)
					}
				}
			}
		}
	}
}

func TestHeaderLost(t *testing.T) {
	l := buildLog(t, 1, 2, false)
	data := slices.Clone([]byte(l.segs[0].R.(bytesAt)))
	data[3] ^= 1
	if recs, _, err := replay(1000, l.with(0, data)...); err != nil || len(recs) != len(l.recs) {
		t.Fatalf("one copy lost: %d records, %v", len(recs), err)
	}
	data[headerTwin+30] ^= 1
	_, _, err := replay(1000, l.with(0, data)...)
	if c, ok := errors.AsType[*CorruptError](err); !ok || c.Segment != 1 {
		t.Fatalf("both copies lost: %v", err)
	}
	other := segmentOf(9, []byte(l.segs[0].R.(bytesAt)))
	if _, _, err := replay(1000, other); err == nil {
		t.Fatal("the header of another segment was accepted")
	}
	page := make([]byte, HeaderBytes)
	putHeader(page, Header{Segment: 1})
	page[8] = 2
	binary.LittleEndian.PutUint64(page[headerSumAt:], xxhash.Sum64(page[:headerSumAt]))
	if _, _, err := replay(0, segmentOf(1, page)); !errors.Is(err, ErrVersion) {
		t.Fatalf("unknown version: %v", err)
	}
}

// A segment that is missing, or cut exactly between two frames, is found out by those after it.
func TestMissingMiddle(t *testing.T) {
	l := buildLog(t, 4, 4, false)
	for i := range 3 {
		segs := slices.Delete(slices.Clone(l.segs), i, i+1)
		recs, _, err := replay(1000, segs...)
		c, ok := errors.AsType[*CorruptError](err)
		if !ok || !isPrefix(recs, l.recs) {
			t.Fatalf("segment %d missing: %d records, %v", i+1, len(recs), err)
		}
		if want := max(uint64(i), segs[0].Number); c.Segment != want {
			t.Fatalf("segment %d missing, found in %d: %v", i+1, c.Segment, err)
		}
	}
	for _, f := range l.frames {
		data := []byte(l.segs[f.seg].R.(bytesAt))[:f.end]
		_, _, err := replay(1000, l.with(f.seg, data)...)
		_, damaged := errors.AsType[*CorruptError](err)
		last := true
		for _, g := range l.frames {
			last = last && (g.seg != f.seg || g.off <= f.off)
		}
		if want := !last && f.seg < 3; damaged != want {
			t.Fatalf("segment %d cut at the frame edge %d: %v", f.seg+1, f.end, err)
		}
	}
	// Without the last segment the log is just shorter, and may have lost what it does not know of.
	if recs, _, err := replay(1000, l.segs[:3]...); err != nil || !isPrefix(recs, l.recs) {
		t.Fatal(err)
	}
	if _, err := Recover([]Segment{l.segs[1], l.segs[0]}, NoPos, nil); err == nil {
		t.Fatal("segments out of order were accepted")
	}
}

// failAt fails reads that touch one byte.
type failAt struct {
	bytesAt
	at int64
}

func (f failAt) ReadAt(p []byte, off int64) (int, error) {
	if off <= f.at && f.at < off+int64(len(p)) {
		return 0, syscall.EIO
	}
	return f.bytesAt.ReadAt(p, off)
}

func TestReadErrorIsNoEnd(t *testing.T) {
	l := buildLog(t, 2, 4, true)
	for s := range l.segs {
		for at := int64(0); at < l.segs[s].Size; at += 97 {
			segs := slices.Clone(l.segs)
			segs[s].R = failAt{l.segs[s].R.(bytesAt), at}
			if _, _, err := replay(1000, segs...); !errors.Is(err, syscall.EIO) {
				t.Fatalf("read error in segment %d at %d: %v", s+1, at, err)
			}
		}
	}
	short := slices.Clone(l.segs)
	short[0].Size += 100
	if _, _, err := replay(1000, short...); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("file shorter than its size: %v", err)
	}
	stop := errors.New("stop")
	if _, err := Recover(l.segs, 1000, func([]byte) error { return stop }); err != stop {
		t.Fatalf("error of fn: %v", err)
	}
}

func TestLargeFrame(t *testing.T) {
	h := Header{Segment: 1, Nonce: 5}
	f := newFake(t, h, nil)
	w := NewWriter(f, h, 0)
	want := []string{strings.Repeat("a", 3*readBytes+5), "b", strings.Repeat("c", readBytes)}
	for _, rec := range want {
		w.Append([]byte(rec))
	}
	if err := w.Sync(NoPos); err != nil {
		t.Fatal(err)
	}
	w.Append([]byte("next"))
	if err := w.Sync(NoPos); err != nil {
		t.Fatal(err)
	}
	recs, _, err := replay(0, segmentOf(1, f.data))
	if err != nil || !slices.Equal(recs, append(want, "next")) {
		t.Fatalf("%d records, %v", len(recs), err)
	}
	f.data[HeaderBytes+2*readBytes] ^= 4
	recs, _, err = replay(0, segmentOf(1, f.data))
	if _, ok := errors.AsType[*CorruptError](err); !ok || len(recs) != 0 {
		t.Fatalf("damaged: %d records, %v", len(recs), err)
	}
}

// With no start given the first frame sets it; its loss is noticed if a later one vouches for it.
func TestNoStart(t *testing.T) {
	l := buildLog(t, 2, 3, false)
	recs, res, err := replay(NoPos, l.segs...)
	if err != nil || len(recs) != len(l.recs) || res.End != l.frames[len(l.frames)-1].pos {
		t.Fatalf("%d records, %+v, %v", len(recs), res, err)
	}
	data := slices.Clone([]byte(l.segs[0].R.(bytesAt)))
	data[HeaderBytes+30] ^= 1
	if recs, _, err = replay(NoPos, l.with(0, data)...); err == nil || len(recs) != 0 {
		t.Fatalf("first frame damaged: %d records, %v", len(recs), err)
	}
	// A header alone is an empty log, one prepared ahead is passed over, from both starts.
	empty := func(n uint64) Segment {
		return segmentOf(n, newFake(t, Header{Segment: n}, nil).data)
	}
	for _, start := range []Pos{0, NoPos} {
		if recs, res, err = replay(start, empty(1), empty(2)); err != nil ||
			res != (Result{Segment: 1, Offset: HeaderBytes}) {
			t.Fatalf("%q, %+v, %v", recs, res, err)
		}
	}
	if _, res, err = replay(77); err != nil || res.End != 77 {
		t.Fatalf("no segments: %+v, %v", res, err)
	}
	segs := []Segment{l.segs[0], l.segs[1], empty(3), empty(4)}
	if recs, _, err = replay(NoPos, segs...); err != nil || len(recs) != len(l.recs) {
		t.Fatalf("prepared segments: %d records, %v", len(recs), err)
	}
	// A start further on skips the segments before it.
	at := slices.IndexFunc(l.frames, func(f testFrame) bool { return f.seg == 1 }) - 1
	recs, _, err = replay(l.frames[at].pos, l.segs...)
	if err != nil || !slices.Equal(recs, l.recs[l.frames[at].recs:]) {
		t.Fatalf("later start: %q, %v", recs, err)
	}
}

// A segment that begins before the end of the ones ahead of it belongs to another history.
func TestOverlap(t *testing.T) {
	l := buildLog(t, 1, 3, false)
	h := Header{Segment: 2, Nonce: 9}
	f := newFake(t, h, nil)
	w := NewWriter(f, h, l.frames[1].pos)
	if err := w.Sync(w.Append([]byte("other"))); err != nil {
		t.Fatal(err)
	}
	_, _, err := replay(1000, l.segs[0], segmentOf(2, f.data))
	if c, ok := errors.AsType[*CorruptError](err); !ok || c.Segment != 2 {
		t.Fatal(err)
	}
}

// Values full of frame headers that lie about their length do not make a resync slow.
func TestResyncIsBounded(t *testing.T) {
	data := make([]byte, 4<<20)
	putHeader(data, Header{Segment: 1})
	size := int64(len(data))
	for off := int64(HeaderBytes); off+frameHeaderBytes <= size; off += frameHeaderBytes {
		var p [frameHeadroom]byte
		putFrameHead(p[:], 0, 0, frameHead{
			payload: size - off - 2*frameHeaderBytes, sum: 1, pos: 1000,
		})
		copy(data[off:], p[contextBytes:])
	}
	s := &countReads{bytesAt: data}
	_, res, err := replay(1000, Segment{Number: 1, R: s, Size: size})
	if err != nil || !res.Torn || res.End != 1000 {
		t.Fatalf("%+v, %v", res, err)
	}
	if limit := int64(8 * (resyncBytes + resyncFactor*len(data))); s.n > limit {
		t.Fatalf("read %d bytes, more than %d", s.n, limit)
	}
}

type countReads struct {
	bytesAt
	n int64
}

func (c *countReads) ReadAt(p []byte, off int64) (int, error) {
	c.n += int64(len(p))
	return c.bytesAt.ReadAt(p, off)
}

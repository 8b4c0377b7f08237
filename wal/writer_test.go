package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	h := Header{Segment: 1, Nonce: 42}
	f := newFake(t, h, nil)
	w := NewWriter(f, h, 100)
	w.Append([]byte("one"))
	if err := w.Sync(w.Append(nil)); err != nil {
		t.Fatal(err)
	}
	next := Header{Segment: 2, Nonce: 43}
	g := newFake(t, next, nil)
	w.Append([]byte("three"))
	if p := w.Rotate(g, next); p != 100+4+1+6 {
		t.Fatalf("boundary at %d", p)
	}
	w.Append([]byte("four"))
	if n := w.Buffered(); n != 6+5 {
		t.Fatalf("%d bytes buffered", n)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !f.closed || !g.closed {
		t.Fatal("a file was left open")
	}
	recs, res, err := replay(100, segmentOf(1, f.synced), segmentOf(2, g.synced))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"one", "", "three", "four"}; !slices.Equal(recs, want) {
		t.Fatalf("replayed %q", recs)
	}
	want := Result{End: 116, Records: 4, Segments: 2, Segment: 2, Offset: 4152}
	if res != want {
		t.Fatalf("result %+v", res)
	}
	if !errors.Is(w.Close(), ErrClosed) || !errors.Is(w.Sync(NoPos), ErrClosed) ||
		w.Append(nil) != NoPos {
		t.Fatal("a closed writer goes on")
	}
	if w.Durable() != 116 || w.Sync(116) != nil {
		t.Fatal("closing took durability back")
	}
	m := w.Metrics()
	if m.Records != 4 || m.Frames != 4 || m.Syncs != 4 || m.Groups[2] != 2 {
		t.Fatalf("%+v", m)
	}
}

// What cannot be written or synced is never acknowledged, nor is anything later.
func TestFailureIsFinal(t *testing.T) {
	for _, op := range []string{"write", "sync"} {
		for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
			h := Header{Segment: 1}
			f := newFake(t, h, nil)
			w := NewWriter(f, h, 0)
			good := w.Append([]byte("good"))
			if err := w.Sync(good); err != nil {
				t.Fatal(err)
			}
			f.fail = func(o string) error {
				if o == op {
					return cause
				}
				return nil
			}
			bad := w.Append([]byte("bad"))
			if err := w.Sync(bad); !errors.Is(err, cause) {
				t.Fatalf("%s failed: %v", op, err)
			}
			f.fail = nil // a sync that fails once may well succeed the next time
			next := Header{Segment: 2}
			g := newFake(t, next, nil)
			w.Rotate(g, next)
			if p := w.Append([]byte("later")); p != NoPos || w.End() != bad {
				t.Fatalf("append after failure at %d", p)
			}
			for _, err := range []error{
				w.Sync(bad), w.Sync(NoPos), w.Write(NoPos), w.Err(), w.Release(1),
				w.Close(), w.Close(),
			} {
				if !errors.Is(err, cause) {
					t.Fatalf("after the failed %s: %v", op, err)
				}
			}
			if w.Durable() != good || w.Sync(good) != nil {
				t.Fatal("what was durable is not")
			}
			if !f.closed || !g.closed {
				t.Fatal("a file was left open")
			}
		}
	}
}

// Prewriting is a convenience: a disk too full for it still takes frames.
func TestNoRoomToPrewrite(t *testing.T) {
	h := Header{Segment: 1}
	f := newFake(t, h, nil)
	w := NewWriter(f, h, 0)
	n := 0
	f.fail = func(op string) error {
		if op == "write" {
			if n++; n == 2 {
				return syscall.ENOSPC
			}
		}
		return nil
	}
	for range 3 {
		if err := w.Sync(w.Append([]byte("x"))); err != nil {
			t.Fatal(err)
		}
	}
	if n != 4 {
		t.Fatalf("%d writes", n)
	}
}

func TestPrewrite(t *testing.T) {
	h := Header{Segment: 1, Prewritten: 1 << 20}
	f := newFake(t, h, make([]byte, 1<<20))
	w := NewWriter(f, h, 0)
	for range 5 {
		for range 3 {
			w.Append(make([]byte, 30<<10))
		}
		if err := w.Write(NoPos); err != nil {
			t.Fatal(err)
		}
		w.Append(nil)
		if err := w.Sync(NoPos); err != nil {
			t.Fatal(err)
		}
		if len(f.data) != 1<<20 {
			t.Fatalf("prewritten file grew to %d", len(f.data))
		}
	}
	w.Append(make([]byte, 600<<10))
	if err := w.Write(NoPos); err != nil || len(f.data) > 1<<20+64<<10 {
		t.Fatalf("a write that does not sync extended the file to %d, %v", len(f.data), err)
	}
	if err := w.Sync(w.Append(nil)); err != nil || len(f.data) != 2<<20 {
		t.Fatalf("a sync extended the file to %d, %v", len(f.data), err)
	}
}

// The old segment is synced and closed before anything in the new one counts as durable.
func TestRotateOrder(t *testing.T) {
	var order []string
	var w *Writer
	files := make([]*fakeFile, 4)
	for i := range files {
		h := Header{Segment: uint64(i + 1)}
		f := newFake(t, h, nil)
		files[i] = f
		f.fail = func(op string) error {
			order = append(order, fmt.Sprintf("%s %d", op, h.Segment))
			if op == "sync" && i > 0 && !files[i-1].closed {
				t.Errorf("segment %d synced while %d is open", i+1, i)
			}
			return nil
		}
		if w == nil {
			w = NewWriter(f, h, 0)
		} else {
			w.Rotate(f, h)
		}
		if i == 2 {
			continue // an empty segment needs no sync
		}
		w.Append([]byte("x"))
		if i == 1 {
			if err := w.Write(NoPos); err != nil {
				t.Fatal(err)
			}
			if files[0].closed || w.Durable() != 0 || w.Written() != 4 {
				t.Fatal("a write synced")
			}
		}
	}
	if err := w.Sync(NoPos); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"write 1", "write 2", "write 4", "write 4" /* prewrite */, "sync 1", "sync 2", "sync 4",
	}
	if !slices.Equal(order, want) {
		t.Fatalf("order %q", order)
	}
	if w.Metrics().Syncs != 3 {
		t.Fatalf("%+v", w.Metrics())
	}
}

func TestRelease(t *testing.T) {
	h := Header{Segment: 5}
	f := newFake(t, h, nil)
	w := NewWriter(f, h, 0)
	w.Append([]byte("old"))
	if err := w.Release(5); err == nil {
		t.Fatal("the current segment was released")
	}
	next := Header{Segment: 6}
	g := newFake(t, next, nil)
	boundary := w.Rotate(g, next)
	p := w.Append([]byte("new"))
	if err := w.Release(5); err != nil || !f.closed || len(f.synced) > HeaderBytes {
		t.Fatalf("closed %v, synced %d bytes, %v", f.closed, len(f.synced), err)
	}
	if w.Durable() != boundary || w.Release(5) != nil || w.Release(3) != nil {
		t.Fatalf("durable %d, boundary %d", w.Durable(), boundary)
	}
	if err := w.Sync(p); err != nil {
		t.Fatal(err)
	}
	recs, _, err := replay(boundary, segmentOf(6, g.synced))
	if err != nil || !slices.Equal(recs, []string{"new"}) {
		t.Fatalf("%q, %v", recs, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// Frames are cut so that none exceeds MaxFrame, and a record no frame can hold fails the writer.
func TestCutFrame(t *testing.T) {
	h := Header{Segment: 1}
	f := newFake(t, h, nil)
	w := NewWriter(f, h, 0)
	w.Append([]byte("one"))
	w.mu.Lock()
	w.cutLocked(1)
	w.mu.Unlock()
	if err := w.Sync(w.Append([]byte("two"))); err != nil || w.Metrics().Frames != 2 {
		t.Fatalf("%+v, %v", w.Metrics(), err)
	}
	recs, _, err := replay(0, segmentOf(1, f.synced))
	if err != nil || !slices.Equal(recs, []string{"one", "two"}) {
		t.Fatalf("%q, %v", recs, err)
	}
	w.mu.Lock()
	w.cutLocked(MaxFrame + 1)
	w.mu.Unlock()
	if !errors.Is(w.Write(NoPos), errRecordSize) {
		t.Fatal(w.Err())
	}
	if n := recordBytes(MaxFrame); n != MaxFrame+5 {
		t.Fatalf("%d", n)
	}
}

// discard is a File that takes everything.
type discard struct{}

func (discard) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (discard) Sync() error                            { return nil }
func (discard) Close() error                           { return nil }

func TestAllocations(t *testing.T) {
	w := NewWriter(discard{}, Header{Segment: 1}, 0)
	rec := make([]byte, 100)
	for name, op := range map[string]func(){
		"Append": func() {
			w.Append(rec)
			if w.Buffered() > 32<<10 {
				_ = w.Write(NoPos)
			}
		},
		"Write": func() { _ = w.Write(w.Append(rec)) },
		"Sync":  func() { _ = w.Sync(w.Append(rec)) },
	} {
		if n := testing.AllocsPerRun(1000, op); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// Many writers append and sync while segments are rotated and released; at any moment, whatever
// was acknowledged survives a power loss.
func TestGroupSync(t *testing.T) {
	const writers, each = 64, 60
	h := Header{Segment: 1, Nonce: 1}
	files := []*fakeFile{newFake(t, h, nil)}
	w := NewWriter(files[0], h, 0)
	var acked [writers]atomic.Int64
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			for n := range each {
				wait := w.Sync
				if i%8 == 7 {
					wait = w.Write
				}
				if err := wait(w.Append(fmt.Appendf(nil, "%d %d", i, n))); err != nil {
					t.Error(err)
					return
				}
				if i%8 != 7 {
					acked[i].Store(int64(n + 1))
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()

	r := rand.New(rand.NewPCG(1, 2))
	check := func() {
		var promised [writers]int64
		for i := range acked {
			promised[i] = acked[i].Load()
		}
		// From the last file to the first: a frame may only vouch for what is synced already.
		segs := make([]Segment, len(files))
		for i, f := range slices.Backward(files) {
			segs[i] = segmentOf(uint64(i+1), f.crash(r))
		}
		var found [writers]int64
		_, err := Recover(segs, 0, func(rec []byte) error {
			var i, n int
			if _, err := fmt.Sscanf(string(rec), "%d %d", &i, &n); err != nil {
				return err
			}
			if found[i] != int64(n) {
				return fmt.Errorf("record %q after %d of its writer", rec, found[i])
			}
			found[i]++
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		for i := range promised {
			if found[i] < promised[i] {
				t.Errorf("writer %d: %d records acknowledged, %d survive", i, promised[i], found[i])
			}
		}
	}
	for running := true; running && !t.Failed(); {
		select {
		case <-done:
			running = false
		default:
		}
		h := Header{Segment: uint64(len(files) + 1), Nonce: r.Uint64()}
		f := newFake(t, h, nil)
		files = append(files, f)
		w.Rotate(f, h)
		check()
	}
	<-done
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	check()
	for i, f := range files {
		if !f.closed {
			t.Errorf("segment %d was left open", i+1)
		}
	}
}

// Releases, rotations and waiters of both kinds in one heap: nobody waits forever.
func TestReleaseStress(t *testing.T) {
	w := NewWriter(discard{}, Header{Segment: 1}, 0)
	var group sync.WaitGroup
	stop := make(chan struct{})
	for i := range 16 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				wait := w.Sync
				if i%2 == 0 {
					wait = w.Write
				}
				if err := wait(w.Append([]byte("record"))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := uint64(2); n < 2000; n++ {
		w.Rotate(discard{}, Header{Segment: n})
		if n%3 == 0 {
			if err := w.Release(n - 1); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	group.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

package wal

import (
	"slices"
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
	h2 := Header{Segment: 2, Nonce: 43}
	f2 := newFake(t, h2, nil)
	w.Append([]byte("three"))
	if p := w.Rotate(f2, h2); p != 100+4+1+6 {
		t.Fatalf("boundary at %d", p)
	}
	w.Append([]byte("four"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !f.closed || !f2.closed {
		t.Fatal("a file was left open")
	}
	recs, res, err := replay(100, segmentOf(1, f.synced), segmentOf(2, f2.synced))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"one", "", "three", "four"}; !slices.Equal(recs, want) {
		t.Fatalf("replayed %q", recs)
	}
	if want := (Result{End: 116, Records: 4, Segments: 2}); res != want {
		t.Fatalf("result %+v", res)
	}
}

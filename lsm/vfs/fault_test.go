package vfs

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
)

var errInjected = errors.New("injected")

// everyKind does one operation of every kind, in the order of OpKind but for what must be open
// first, going on after errors. It returns what each operation returned.
func everyKind(f FS) map[OpKind]error {
	got := map[OpKind]error{}
	open := func(kind OpKind, open func(string) (File, error)) File {
		h, err := open("d/f")
		got[kind] = err
		return h
	}
	got[OpMkdirAll] = f.MkdirAll("d")
	var l io.Closer
	if l, got[OpLock] = f.Lock("d/LOCK"); l != nil {
		got[OpUnlock] = l.Close()
	}
	h := open(OpCreate, f.Create)
	if h != nil {
		_, got[OpWriteAt] = h.WriteAt([]byte("0123456789"), 0)
		_, got[OpReadAt] = h.ReadAt(make([]byte, 4), 2)
		_, got[OpFileSize] = h.Size()
		got[OpTruncate] = h.Truncate(8)
		got[OpSync] = h.Sync()
		got[OpClose] = h.Close()
	}
	if h := open(OpOpen, f.Open); h != nil {
		_ = h.Close()
	}
	if h := open(OpOpenReadWrite, f.OpenReadWrite); h != nil {
		_ = h.Close()
	}
	got[OpLink] = f.Link("d/f", "d/linked")
	got[OpRename] = f.Rename("d/linked", "d/renamed")
	got[OpRemove] = f.Remove("d/renamed")
	_, got[OpList] = f.List("d")
	_, got[OpSize] = f.Size("d/f")
	got[OpSyncDir] = f.SyncDir("d")
	return got
}

func TestEveryKindPassesAndFails(t *testing.T) {
	var ops []Op
	clean := NewMem()
	must(t, clean.MkdirAll("d")) // so that a failed MkdirAll does not fail everything after it
	f := NewFault(clean, func(o Op) error { ops = append(ops, o); return nil })
	for kind, err := range everyKind(f) {
		if err != nil {
			t.Errorf("%v without a fault: %v", kind, err)
		}
	}
	for i, o := range ops {
		if o.N != uint64(i+1) {
			t.Errorf("operation %d has the number %d", i+1, o.N)
		}
	}
	if f.Ops() != uint64(len(ops)) {
		t.Errorf("Ops = %d of %d", f.Ops(), len(ops))
	}
	for kind := range opKinds {
		if !slices.ContainsFunc(ops, func(o Op) bool { return o.Kind == kind }) {
			t.Errorf("no %v in %v", kind, ops)
		}
		m := NewMem()
		must(t, m.MkdirAll("d"))
		got := everyKind(NewFault(m, func(o Op) error {
			if o.Kind == kind {
				return errInjected
			}
			return nil
		}))
		if got[kind] != errInjected {
			t.Errorf("%v: %v, want the injected error as it is", kind, got[kind])
		}
		if n := m.OpenFiles(); n != 0 {
			t.Errorf("%v: %d handles leak", kind, n)
		}
	}
}

// TestEveryOperationFails lets each single operation of a run fail in turn.
func TestEveryOperationFails(t *testing.T) {
	count := NewFault(NewMem(), nil)
	everyKind(count)
	for n := uint64(1); n <= count.Ops(); n++ {
		m := NewMem()
		var at Op
		f := NewFault(m, func(o Op) error {
			if o.N == n {
				at = o
				return errInjected
			}
			return nil
		})
		seen := false
		for _, err := range everyKind(f) {
			seen = seen || err == errInjected
		}
		// The two Closes after Open and OpenReadWrite are the ones whose error nobody looks at.
		if !seen && at.Kind != OpClose {
			t.Errorf("%v failed and nobody noticed", at)
		}
		if m.OpenFiles() != 0 {
			t.Errorf("%v: a handle leaks", at)
		}
	}
}

func TestInjectedOperationIsNotDone(t *testing.T) {
	m := NewMem()
	must(t, m.WriteFile("f", []byte("abc")))
	h, err := NewFault(m, func(o Op) error {
		if o.Kind.Writes() {
			return errInjected
		}
		return nil
	}).OpenReadWrite("f")
	must(t, err)
	before := dump(t, m)
	_, _ = h.WriteAt([]byte("x"), 0)
	_ = h.Truncate(0)
	if got := dump(t, m); got != before {
		t.Errorf("the disk changed to %s", got)
	}
	must(t, h.Close())
	f := NewFault(m, func(Op) error { return errInjected })
	for kind, err := range everyKind(f) {
		if err != errInjected {
			t.Errorf("%v: %v", kind, err)
		}
	}
	if got := dump(t, m); got != before {
		t.Errorf("the disk changed to %s", got)
	}
}

func TestShortWrite(t *testing.T) {
	for _, c := range []struct{ ask, want int }{{-1, 0}, {0, 0}, {3, 3}, {10, 10}, {99, 10}} {
		m := NewMem()
		must(t, m.WriteFile("f", []byte("..........")))
		h, err := NewFault(m, func(o Op) error {
			if o.Kind == OpOpenReadWrite || o.Kind == OpClose {
				return nil
			}
			return fmt.Errorf("wrapped: %w", ShortWrite(c.ask, errInjected))
		}).OpenReadWrite("f")
		must(t, err)
		n, err := h.WriteAt([]byte("0123456789"), 0)
		if n != c.want || err != errInjected {
			t.Errorf("WriteAt short at %d: %d, %v", c.ask, n, err)
		}
		if got, want := content(t, m, "f"), "0123456789"[:n]+".........."[n:]; got != want {
			t.Errorf("short at %d left %q, want %q", c.ask, got, want)
		}
		if n, err := h.ReadAt(make([]byte, 10), 0); n != c.want || err != errInjected {
			t.Errorf("ReadAt short at %d: %d, %v", c.ask, n, err)
		}
		if err := h.Sync(); err != errInjected {
			t.Errorf("Sync: %v", err)
		}
		must(t, h.Close())
	}
	if err := ShortWrite(1, io.ErrShortWrite); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("%v hides its cause", err)
	}
}

func TestOpString(t *testing.T) {
	for _, c := range []struct {
		op   Op
		want string
	}{
		{Op{Kind: OpSync, Name: "a.wal", N: 3}, "#3 Sync a.wal"},
		{Op{Kind: OpRename, Name: "a", NewName: "b", N: 4}, "#4 Rename a b"},
		{Op{Kind: OpWriteAt, Name: "a", Off: 512, Len: 512, N: 5}, "#5 WriteAt a [512,1024)"},
		{Op{Kind: OpTruncate, Name: "a", Len: 7, N: 6}, "#6 Truncate a 7"},
		{Op{Kind: opKinds, Name: "a"}, "#0 OpKind(18) a"},
	} {
		if got := c.op.String(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestFaultNumbersConcurrentOperations(t *testing.T) {
	var mu sync.Mutex
	seen := map[uint64]bool{}
	f := NewFault(NewMem(), func(o Op) error {
		mu.Lock()
		defer mu.Unlock()
		if seen[o.N] {
			t.Errorf("two operations have the number %d", o.N)
		}
		seen[o.N] = true
		return nil
	})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				_, _ = f.List(".")
			}
		})
	}
	wg.Wait()
	if len(seen) != 800 || f.Ops() != 800 {
		t.Errorf("%d numbers, Ops = %d, want 800", len(seen), f.Ops())
	}
}

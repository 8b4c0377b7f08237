package replication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"kvd/lsm"
	"kvd/lsm/vfs"
)

// TestDeferredWrites asks a node for writes of every kind as the transport does, and looks after a
// power cut what of them is there.
func TestDeferredWrites(t *testing.T) {
	mem := vfs.NewMem()
	var broken atomic.Bool
	fsys := vfs.NewFault(mem, func(o vfs.Op) error {
		if broken.Load() && o.Kind == vfs.OpSync && strings.Contains(o.Name, ".wal") {
			return syscall.EIO
		}
		return nil
	})
	db, err := lsm.Open("/db", lsm.Options{FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	node := NewNode(db, NodeOptions{})
	var b lsm.Batch
	b.Put([]byte("in a batch"), []byte("2"))
	b.Delete([]byte("gone"))
	requests := []request{
		{kind: KindPut, durability: lsm.Sync, key: []byte("gone"), value: []byte("0")},
		{kind: KindPut, durability: lsm.Sync, key: []byte("put"), value: []byte("1")},
		{kind: KindApply, durability: lsm.Sync, ops: appendOperations(nil, &b)},
		{kind: KindDelete, durability: lsm.Sync, key: []byte("nothing")},
	}
	var tags []byte
	var arrived []time.Time
	for _, r := range requests {
		out, tag, ok := node.TryDefer(r.appendTo(nil), nil)
		if _, err := decodeAnswer(out); !ok || err != nil {
			t.Fatalf("%v: deferred %v, %v", r.kind, ok, err)
		}
		tags, arrived = append(tags, tag), append(arrived, time.Now())
	}
	if instead := node.Settle(tags, arrived); instead != nil {
		t.Fatalf("Settle: % x", instead)
	}
	for kind, want := range map[Kind]uint64{KindPut: 2, KindApply: 1, KindDelete: 1} {
		op := node.Metrics().Ops[kind-1]
		if op.OK != want || op.Failed != 0 || op.Duration.Count() != want {
			t.Errorf("metrics of %v: %+v", kind, op)
		}
	}
	after, err := lsm.Open("/db", lsm.Options{FS: mem.Crash(nil, vfs.KeepNone)})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"put": "1", "in a batch": "2", "gone": ""} {
		got, err := after.Get([]byte(key))
		if string(got) != want || errors.Is(err, lsm.ErrNotFound) != (want == "") {
			t.Errorf("%s after a power cut: %q, %v", key, got, err)
		}
	}
	if err := after.Close(); err != nil {
		t.Error(err)
	}

	broken.Store(true)
	if _, _, ok := node.TryDefer(requests[1].appendTo(nil), nil); !ok {
		t.Fatal("not deferred")
	}
	_, err = decodeAnswer(node.Settle(tags[1:2], arrived[1:2]))
	if !errors.Is(err, ErrInDoubt) {
		t.Errorf("a sync that failed: %v", err)
	}
	// The sync failed for somebody else, before this one asked for it.
	_, err = decodeAnswer(node.Settle(tags[1:2], arrived[1:2]))
	if !errors.Is(err, ErrInDoubt) {
		t.Errorf("a sync of what failed before: %v", err)
	}
	if op := node.Metrics().Ops[KindPut-1]; op.OK != 2 || op.Failed != 2 {
		t.Errorf("metrics: %+v", op)
	}
	_ = db.Close()
}

// TestDeferredAsyncWrites: without a sync they are in the file of the log when they are answered, and
// beside one that has to survive a power cut they share its sync.
func TestDeferredAsyncWrites(t *testing.T) {
	mem := vfs.NewMem()
	var syncs, writes atomic.Int64
	fsys := vfs.NewFault(mem, func(o vfs.Op) error {
		switch {
		case !strings.Contains(o.Name, ".wal"):
		case o.Kind == vfs.OpSync:
			syncs.Add(1)
		case o.Kind == vfs.OpWriteAt:
			writes.Add(1)
		}
		return nil
	})
	db, err := lsm.Open("/db", lsm.Options{FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	node := NewNode(db, NodeOptions{})
	settle := func(wantSync bool, all ...lsm.Durability) {
		t.Helper()
		syncsBefore, writesBefore := syncs.Load(), writes.Load()
		var tags []byte
		for i, d := range all {
			r := request{kind: KindPut, durability: d, key: []byte{byte(i)}, value: []byte("v")}
			out, tag, ok := node.TryDefer(r.appendTo(nil), nil)
			if _, err := decodeAnswer(out); !ok || err != nil {
				t.Fatalf("deferred %v, %v", ok, err)
			}
			tags = append(tags, tag)
		}
		if instead := node.Settle(tags, make([]time.Time, len(tags))); instead != nil {
			t.Fatalf("Settle: % x", instead)
		}
		if synced := syncs.Load() > syncsBefore; synced != wantSync || writes.Load() == writesBefore {
			t.Errorf("%v: synced %v, %d writes", all, synced, writes.Load()-writesBefore)
		}
	}
	settle(false, lsm.Async, lsm.Async)
	settle(true, lsm.Async, lsm.Sync, lsm.Async)
	settle(false, lsm.Async)
	if op := node.Metrics().Ops[KindPut-1]; op.OK != 6 || op.Failed != 0 {
		t.Errorf("metrics: %+v", op)
	}
}

// TestNotDeferred: what cannot be done at once, or not well, is left to Call.
func TestNotDeferred(t *testing.T) {
	_, node, _ := newTestNode(t)
	long := make([]byte, lsm.MaxKeyBytes+1)
	put := request{kind: KindPut, durability: lsm.Sync, key: []byte("k")}
	raw := put.appendTo(nil)
	for name, req := range map[string][]byte{
		"a read":       (&request{kind: KindGet, key: []byte("k")}).appendTo(nil),
		"not so":       (&request{kind: KindPut, durability: lsm.NoSync, key: []byte("k")}).appendTo(nil),
		"a long key":   (&request{kind: KindPut, durability: lsm.Sync, key: long}).appendTo(nil),
		"half of it":   raw[:len(raw)-1],
		"a lone kind":  raw[:1],
		"nothing":      nil,
		"another kind": {200, byte(lsm.Sync)},
	} {
		if out, _, ok := node.TryDefer(req, []byte("dst")); ok || string(out) != "dst" {
			t.Errorf("%s: %q, %v", name, out, ok)
		}
	}
	large := request{kind: KindPut, durability: lsm.NoSync, key: []byte("k"),
		value: make([]byte, tryBytesMax)}
	if _, ok := node.TryCall(large.appendTo(nil), nil); ok {
		t.Error("a large write is done at once")
	}
	node.Drain()
	if _, _, ok := node.TryDefer(raw, nil); ok {
		t.Error("a node that shuts down defers")
	}
	if n := node.Metrics().Ops[KindPut-1].OK; n != 0 {
		t.Errorf("%d puts were done", n)
	}
}

// TestWhatIsOnDiskIsLeftToCall: a read of the disk on the goroutine that reads a lane had all
// requests of the lane wait for it.
func TestWhatIsOnDiskIsLeftToCall(t *testing.T) {
	_, node, _ := newTestNode(t)
	l := newLocalCluster(t, 3)
	c := l.client()
	ctx := t.Context()
	for i := range 100 {
		key := fmt.Appendf(nil, "key%d", i)
		if err := node.db.Put(key, []byte("v"), lsm.NoSync); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Put(ctx, key, []byte("v"), WriteOptions{Level: All}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(node.db.Flush(), l.nodes[0].node.db.Flush()); err != nil {
		t.Fatal(err)
	}
	get := (&request{kind: KindGet, key: []byte("key50")}).appendTo(nil)
	read := (&Op{Kind: KindRead, Key: []byte("key50"), Level: One}).AppendTo(nil)
	for name, r := range map[string]struct {
		node interface {
			TryCall(req, dst []byte) ([]byte, bool)
			Call(ctx context.Context, req, dst []byte) ([]byte, error)
		}
		req []byte
	}{"a node": {node, get}, "a node of a cluster": {l.nodes[0], read}} {
		if _, ok := r.node.TryCall(r.req, nil); ok {
			t.Errorf("%s reads a file at once", name)
		}
		want, _ := r.node.Call(ctx, r.req, nil)
		if _, err := decodeAnswer(want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, ok := r.node.TryCall(r.req, nil); !ok || !bytes.Equal(got, want) {
			t.Errorf("%s: %q, %v at once of what is in memory, %q by Call", name, got, ok, want)
		}
	}
	none := (&request{kind: KindGet, key: []byte("nowhere")}).appendTo(nil)
	got, ok := node.TryCall(none, nil)
	if _, err := decodeAnswer(got); !ok || !errors.Is(err, lsm.ErrNotFound) {
		t.Errorf("a key that is nowhere: %v, %v", ok, err)
	}
	if op := node.Metrics().Ops[KindGet-1]; op.OK != 3 {
		t.Errorf("counted: %+v", op)
	}
}

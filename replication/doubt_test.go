package replication

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"kvd/lsm"
	"kvd/lsm/vfs"
)

// A write that the engine had made visible and logged, but could not sync, was reported as refused.
func TestWriteThatMayHaveHappenedIsInDoubt(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
		var on atomic.Bool
		fs := vfs.NewFault(vfs.NewMem(), func(o vfs.Op) error {
			if on.Load() && o.Kind == vfs.OpSync && strings.Contains(o.Name, ".wal") {
				return fault
			}
			return nil
		})
		db, err := lsm.Open("/db", lsm.Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		c := NewClient(&direct{node: NewNode(db, NodeOptions{})}, errLost)
		ctx := context.Background()
		if err := c.Put(ctx, []byte("k"), []byte("old"), lsm.Sync); err != nil {
			t.Fatal(err)
		}
		on.Store(true)
		err = c.Put(ctx, []byte("k"), []byte("new"), lsm.Sync)
		if !errors.Is(err, ErrInDoubt) {
			t.Errorf("%v: Put: %v, want it in doubt", fault, err)
		}
		err = c.Put(ctx, []byte("k"), []byte("newer"), lsm.Sync)
		if fault == syscall.EIO && (errors.Is(err, ErrInDoubt) || !errors.Is(err, lsm.ErrReadOnly)) {
			t.Errorf("%v: the next Put: %v, want it refused", fault, err)
		}
		_ = db.Close() // reports the fault
	}
}

// An answer that nobody understands was taken for a failure of the write.
func TestWriteWithUnknownAnswerIsInDoubt(t *testing.T) {
	c := NewClient(repeating{[]byte{99, 1, 'x'}}, errLost)
	err := c.Put(context.Background(), []byte("k"), []byte("v"), lsm.Sync)
	if !errors.Is(err, ErrInDoubt) {
		t.Errorf("%v, want it in doubt", err)
	}
}

// A scan whose time ran out at the node a moment before it did at the client failed with a text
// that no program could tell from any other failure.
func TestExpiredAtNodeIsDeadlineExceeded(t *testing.T) {
	c, node, _ := newTestNode(t)
	if err := c.Put(context.Background(), []byte("k"), []byte("v"), lsm.NoSync); err != nil {
		t.Fatal(err)
	}
	late, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	<-late.Done()
	r := request{kind: KindScan}
	answer, err := node.Call(late, r.appendTo(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeAnswer(answer); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want one that is context.DeadlineExceeded", err)
	}
	answer = appendError(nil, context.DeadlineExceeded, true)
	if _, err := decodeAnswer(answer); !errors.Is(err, ErrInDoubt) {
		t.Errorf("a write: %v, want it in doubt", err)
	}
}

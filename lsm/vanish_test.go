package lsm

import (
	"encoding/binary"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kvd/lsm/vfs"
)

// TestOverwrittenKeyNeverVanishes reads keys that are overwritten, flushed and compacted all the
// time. A reader that takes its sequence number before its state, or a snapshot that a flush or
// compaction does not know of, is entitled to a version that is gone: the key seems never to have
// been written. With many more threads than processors the kernel makes readers pause for
// milliseconds at any instruction, also between those two. It finds such a mistake in seconds, not
// at once; TestStateBeforeSequence finds the mistakes that are known, at once.
func TestOverwrittenKeyNeverVanishes(t *testing.T) {
	const keys, readers = 3, 2 // of each kind
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4 * readers))
	db := mustOpen(t, "data", tinyOptions(vfs.NewMem()))
	key := func(i int) []byte { return fmt.Appendf(nil, "key%d", i) }
	put := func(n int) {
		for i := range keys {
			value := binary.BigEndian.AppendUint64(nil, uint64(n))
			if err := db.Put(key(i), value, NoSync); err != nil {
				t.Error(err)
			}
		}
	}
	number := func(who string, value []byte, err error) uint64 {
		if err != nil {
			t.Errorf("%s: %v", who, err)
			return 0
		}
		return binary.BigEndian.Uint64(value)
	}
	get := func(last *[keys]uint64) {
		value, err := db.Get(key(0))
		n := number("Get", value, err)
		if n < last[0] {
			t.Errorf("Get went back from %d to %d", last[0], n)
		}
		last[0] = n
	}
	walk := func(last *[keys]uint64) {
		it, n := db.NewIter(IterOptions{}), 0
		for ok := it.Last(); ok; ok = it.Prev() {
			if v := binary.BigEndian.Uint64(it.Value()); v < last[n] {
				t.Errorf("an iterator went back from %d to %d", last[n], v)
			} else {
				last[n] = v
			}
			n++
		}
		if err := it.Close(); err != nil || n != keys {
			t.Errorf("an iterator sees %d keys of %d, %v", n, keys, err)
		}
	}
	snap := func(*[keys]uint64) {
		s := db.NewSnapshot()
		value, err := s.Get(key(1))
		n := number("Snapshot", value, err)
		runtime.Gosched()
		value, err = s.Get(key(1))
		if m := number("Snapshot again", value, err); m != n {
			t.Errorf("a snapshot changed from %d to %d", n, m)
		}
		_ = s.Close()
	}

	put(1)
	var stop atomic.Bool
	var reads atomic.Int64
	var wg sync.WaitGroup
	for _, read := range []func(*[keys]uint64){get, walk, snap} {
		for range readers {
			wg.Go(func() {
				for last := new([keys]uint64); !stop.Load() && !t.Failed(); reads.Add(1) {
					read(last)
				}
			})
		}
	}
	rounds := 2
	for until := time.Now().Add(max(time.Second, *budget)); time.Now().Before(until); rounds++ {
		put(rounds)
		if rounds%2 == 0 {
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	count(t, "operations", int64(rounds*keys)+reads.Load())
	mustClose(t, db)
}

// TestStateBeforeSequence reads the source: whoever takes the visible sequence number to read with
// has taken the state before, or holds the lock under which compactions learn of snapshots.
func TestStateBeforeSequence(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	readers := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || name == "metrics.go" { // which reads nothing with it
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			before := false
			ast.Inspect(decl, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				switch path := selectorPath(call.Fun); {
				case strings.HasSuffix(path, ".state.Load"), strings.HasSuffix(path, ".acquireState"),
					strings.HasSuffix(path, "db.mu.Lock"):
					before = true
				case strings.HasSuffix(path, ".published.seq"):
					readers++
					if !before {
						t.Errorf("%s: %s takes the sequence number before the state", name,
							decl.(*ast.FuncDecl).Name)
					}
				}
				return true
			})
		}
	}
	if readers < 3 {
		t.Errorf("only %d readers found: the test looks for the wrong thing", readers)
	}
}

// selectorPath is a.b.c for the expression a.b.c.
func selectorPath(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return selectorPath(e.X) + "." + e.Sel.Name
	}
	return ""
}

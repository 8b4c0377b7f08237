package lsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"kvd/compaction"
	"kvd/lsm/vfs"
	"kvd/sstable"
)

// tinyOptions make a small amount of data go through every part of the tree.
func tinyOptions(fs vfs.FS) Options {
	return Options{
		FS:            fs,
		MemtableBytes: 4 << 10,
		CacheBytes:    32 << 10,
		BlockBytes:    256,
		Compaction: compaction.Config{
			BaseBytes: 16 << 10, TableBytes: 4 << 10, Multiplier: 4, LevelZeroTrigger: 2,
		},
	}
}

func mustOpen(t testing.TB, dir string, o Options) *DB {
	t.Helper()
	db, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func mustClose(t testing.TB, db *DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPutGetDeleteThroughEveryLevel(t *testing.T) {
	db := mustOpen(t, "data", tinyOptions(vfs.NewMem()))
	const n = 5000
	for i := range n {
		key := fmt.Appendf(nil, "key%06d", i*7919%n)
		if err := db.Put(key, fmt.Appendf(nil, "value of %s", key), NoSync); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			if err := db.Delete(fmt.Appendf(nil, "key%06d", i*7919/2%n), NoSync); err != nil {
				t.Fatal(err)
			}
		}
	}
	state := map[string]bool{}
	for i := range n {
		state[fmt.Sprintf("key%06d", i*7919%n)] = true
		if i%3 == 0 {
			delete(state, fmt.Sprintf("key%06d", i*7919/2%n))
		}
	}
	check := func(when string) {
		t.Helper()
		for i := range n {
			key := fmt.Sprintf("key%06d", i)
			value, err := db.Get([]byte(key))
			if want := state[key]; want != (err == nil) {
				t.Fatalf("%s: Get(%s) = %q, %v; want it there: %v", when, key, value, err, want)
			} else if want && string(value) != "value of "+key {
				t.Fatalf("%s: Get(%s) = %q", when, key, value)
			} else if !want && !errors.Is(err, ErrNotFound) {
				t.Fatalf("%s: Get(%s): %v", when, key, err)
			}
		}
		it := db.NewIter(IterOptions{})
		count := 0
		for key := range it.All() {
			if !state[string(key)] {
				t.Fatalf("%s: iterator returns %s", when, key)
			}
			count++
		}
		for ok := it.Last(); ok; ok = it.Prev() {
			count--
		}
		if err := it.Close(); err != nil || count != 0 {
			t.Fatalf("%s: forward saw %d more than backward, %v", when, count, err)
		}
		if err := db.Check(); err != nil {
			t.Fatal(err)
		}
	}
	check("as written")
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	check("flushed")
	if err := db.Compact(context.Background(), nil, nil); err != nil {
		t.Fatal(err)
	}
	check("compacted")
	if err := db.Check(); err != nil {
		t.Fatal(err)
	}
	fs := db.opts.FS
	mustClose(t, db)
	db = mustOpen(t, "data", tinyOptions(fs))
	check("reopened")
	t.Log(db.Metrics().String())
	mustClose(t, db)
}

// difference says where two contents differ.
func difference(got, want map[string]string) string {
	var b strings.Builder
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			fmt.Fprintf(&b, "\n%q: %d bytes (%v), want %d bytes", k, len(g), ok, len(v))
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			fmt.Fprintf(&b, "\n%q: not wanted", k)
		}
	}
	return b.String()
}

// A small tree is rewritten in memory, a large one by way of the disk.
func TestLargeTreeIsCompressed(t *testing.T) {
	db := mustOpen(t, "data", tinyOptions(vfs.NewMem()))
	defer mustClose(t, db)
	compressed := func() bool { // a table of level 0
		w, err := db.createTable(0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Abort()
		for i := range 100 {
			k := sstable.MakeKey(fmt.Appendf(nil, "%03d", i), 1, sstable.KindPut)
			if err := w.Add(k, bytes.Repeat([]byte("v"), 100)); err != nil {
				t.Fatal(err)
			}
		}
		m, err := w.Finish()
		if err != nil {
			t.Fatal(err)
		}
		return m.Bytes < m.RawBytes/2
	}
	if compressed() {
		t.Error("in an empty tree")
	}
	r, value := rand.New(rand.NewPCG(1, 1)), make([]byte, 100)
	for i := range 4000 {
		for j := range value {
			value[j] = byte(r.Uint32())
		}
		if err := db.Put(fmt.Appendf(nil, "%06d", i), value, NoSync); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	if !compressed() {
		t.Error("not in a tree of 400 KB, where level 0 gathers 16")
	}
}

package sstable

import (
	"bytes"
	"testing"
)

// The value of an iterator had spare capacity, so that an append to it overwrote the next entry of
// the cached block for all readers.
func TestAppendToValueLeavesNextEntryAlone(t *testing.T) {
	var file bytes.Buffer
	w := NewWriter(&file, WriterOptions{Num: 1, UID: 2})
	for _, k := range []string{"key00", "key01"} {
		if err := w.Add(MakeKey([]byte(k), 1, KindPut), []byte("v-"+k)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(bytes.NewReader(file.Bytes()), int64(file.Len()), ID{1, 2}, NewCache(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	it := r.NewIter(IterOptions{})
	it.First() // the cache has the block
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	it = r.NewIter(IterOptions{})
	for ok := it.First(); ok; ok = it.Next() {
		_ = append(it.Value(), "over"...)
	}
	for _, k := range []string{"key00", "key01"} {
		value, _, _, ok, err := r.Get(nil, []byte(k), Hash([]byte(k)), SeqMax)
		if !ok || err != nil || string(value) != "v-"+k {
			t.Errorf("%s is %q, %v, %v", k, value, ok, err)
		}
	}
}

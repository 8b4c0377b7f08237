package sstable_test

import (
	"bytes"
	"fmt"

	"kvd/sstable"
)

func table() (*bytes.Reader, sstable.Meta) {
	var file bytes.Buffer
	w := sstable.NewWriter(&file, sstable.WriterOptions{Num: 1, UID: 0xfeed})
	w.Add(sstable.MakeKey([]byte("apple"), 7, sstable.KindPut), []byte("red"))
	w.Add(sstable.MakeKey([]byte("apple"), 3, sstable.KindDelete), nil)
	w.Add(sstable.MakeKey([]byte("apricot"), 5, sstable.KindPut), []byte("orange"))
	meta, err := w.Finish()
	if err != nil {
		panic(err)
	}
	return bytes.NewReader(file.Bytes()), meta
}

func ExampleWriter() {
	_, meta := table()
	fmt.Println(meta.Entries, "entries from", meta.Smallest, "to", meta.Largest)
	// Output: 3 entries from "apple"#7,PUT to "apricot"#5,PUT
}

func ExampleReader_Get() {
	file, meta := table()
	cache := sstable.NewCache(1 << 20)
	defer cache.Close()
	r, err := sstable.NewReader(file, file.Size(), sstable.ID{Num: meta.Num, UID: meta.UID}, cache)
	if err != nil {
		panic(err)
	}
	defer r.Close()
	reader := cache.Readers().Enter()
	defer reader.Exit()
	key := []byte("apple")
	for _, at := range []sstable.Seq{sstable.SeqMax, 6, 2} {
		value, kind, seq, ok, err := r.Get(nil, key, sstable.Hash(key), at)
		fmt.Printf("%q %v %d %v %v\n", value, kind, seq, ok, err)
	}
	// Output:
	// "red" PUT 7 true <nil>
	// "" DEL 3 true <nil>
	// "" DEL 0 false <nil>
}

func ExampleTableIter() {
	file, meta := table()
	r, err := sstable.NewReader(file, file.Size(), sstable.ID{Num: meta.Num, UID: meta.UID}, nil)
	if err != nil {
		panic(err)
	}
	defer r.Close()
	it := r.NewIter(sstable.IterOptions{})
	defer it.Close()
	for ok := it.SeekGE([]byte("apple")); ok; ok = it.Next() {
		fmt.Printf("%v %q\n", it.Key(), it.Value())
	}
	fmt.Println(it.Err())
	// Output:
	// "apple"#7,PUT "red"
	// "apple"#3,DEL ""
	// "apricot"#5,PUT "orange"
	// <nil>
}

func ExampleMerge() {
	one, meta := table()
	id := sstable.ID{Num: meta.Num, UID: meta.UID}
	r, err := sstable.NewReader(one, one.Size(), id, nil)
	if err != nil {
		panic(err)
	}
	var file bytes.Buffer
	w := sstable.NewWriter(&file, sstable.WriterOptions{Num: 2, UID: 0xbeef})
	w.Add(sstable.MakeKey([]byte("apple"), 9, sstable.KindPut), []byte("green"))
	if meta, err = w.Finish(); err != nil {
		panic(err)
	}
	two := bytes.NewReader(file.Bytes())
	newer, err := sstable.NewReader(two, two.Size(), sstable.ID{Num: meta.Num, UID: meta.UID}, nil)
	if err != nil {
		panic(err)
	}
	m := sstable.NewMerge(r.NewIter(sstable.IterOptions{}), newer.NewIter(sstable.IterOptions{}))
	defer m.Close()
	for ok := m.Last(); ok; ok = m.Prev() {
		fmt.Printf("%v %q\n", m.Key(), m.Value())
	}
	// Output:
	// "apricot"#5,PUT "orange"
	// "apple"#3,DEL ""
	// "apple"#7,PUT "red"
	// "apple"#9,PUT "green"
}

package wal_test

import (
	"fmt"
	"os"
	"path/filepath"

	"kvd/wal"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// A segment is created under a temporary name, written to, and recovered.
func Example() {
	dir, err := os.MkdirTemp("", "wal")
	check(err)
	defer os.RemoveAll(dir)

	name := filepath.Join(dir, "000001.wal")
	f, err := os.Create(name + ".tmp")
	check(err)
	h := wal.Header{Segment: 1, Nonce: 0x5eed} // the nonce should be random
	check(wal.WriteHeader(f, h))
	check(os.Rename(name+".tmp", name)) // and then sync the directory

	w := wal.NewWriter(f, h, 0)
	w.Append([]byte("first"))
	p := w.Append([]byte("second"))
	check(w.Sync(p))
	check(w.Close())

	f, err = os.Open(name)
	check(err)
	defer f.Close()
	info, err := f.Stat()
	check(err)
	segments := []wal.Segment{{Number: 1, R: f, Size: info.Size()}}
	res, err := wal.Recover(segments, 0, func(rec []byte) error {
		fmt.Printf("%s\n", rec)
		return nil
	})
	check(err)
	fmt.Println("end", res.End, "torn", res.Torn)
	// Output:
	// first
	// second
	// end 13 torn false
}

// A Reader shows a segment frame by frame, for tools that look inside.
func ExampleReader() {
	var f memory
	h := wal.Header{Segment: 7, Nonce: 1}
	check(wal.WriteHeader(&f, h))
	w := wal.NewWriter(&f, h, 100)
	w.Append([]byte("a"))
	check(w.Sync(wal.NoPos))
	w.Append([]byte("b"))
	w.Append([]byte("c"))
	check(w.Close())

	r, err := wal.NewReader(wal.Segment{Number: 7, R: &f, Size: int64(len(f.data))})
	check(err)
	for r.Next() {
		fr := r.Frame()
		fmt.Printf("%d: [%d,%d) durable %d\n", fr.Offset, fr.Pos, fr.End(), fr.Durable)
	}
	check(r.Err())
	fmt.Println("then:", r.Stop())
	// Output:
	// 4096: [100,102) durable 100
	// 4128: [102,106) durable 102
	// 4160: [106,106) durable 106
	// then: END frame
}

// memory is a file in memory.
type memory struct{ data []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if n := int(off) + len(p); n > len(m.data) {
		m.data = append(m.data, make([]byte, n-len(m.data))...)
	}
	return copy(m.data[off:], p), nil
}
func (m *memory) ReadAt(p []byte, off int64) (int, error) { return copy(p, m.data[off:]), nil }
func (m *memory) Sync() error                             { return nil }
func (m *memory) Close() error                            { return nil }

package wal

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// goldenLog returns the worked example of doc.go.
func goldenLog(t testing.TB) []byte {
	h := Header{Segment: 1, Nonce: 0x0123456789abcdef, Log: 0x7766554433221100}
	f := newFake(t, h, nil)
	w := NewWriter(f, h, 0)
	w.Append([]byte("put a=1"))
	w.Append([]byte("put b=2"))
	if err := w.Sync(NoPos); err != nil {
		t.Fatal(err)
	}
	w.Append([]byte("delete a"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return f.synced
}

// The bytes in doc.go are what the writer writes.
func TestGolden(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	data := goldenLog(t)
	seen := make([]byte, len(data))
	lines := 0
	for line := range strings.Lines(string(doc)) {
		text, ok := strings.CutPrefix(line, "//	@")
		if !ok {
			continue
		}
		fields := strings.Fields(text)
		var off int
		for _, c := range strings.TrimSuffix(fields[0], ":") {
			off = off*10 + int(c-'0')
		}
		for _, field := range fields[1:] {
			b, err := hex.DecodeString(field)
			if err != nil {
				break // the words after the bytes
			}
			off += copy(seen[off:], b)
		}
		lines++
	}
	if end := HeaderBytes + 40 + 40 + 24; lines == 0 || !bytes.Equal(seen[:end], data[:end]) {
		t.Errorf("doc.go has %d lines of bytes; the log is now\n%s%s", lines,
			hex.Dump(data[:headerCopy]), hex.Dump(data[HeaderBytes:end]))
	}
}

package vfs

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// diskReads returns how many bytes this process has had read from disks.
func diskReads(t testing.TB) (bytes int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip(err)
	}
	_, line, _ := strings.Cut(string(text), "\nread_bytes: ")
	if _, err := fmt.Sscan(line, &bytes); err != nil {
		t.Skip(err)
	}
	return bytes
}

// TestOpenMediumReadsTheDisk reads a file that the operating system has in its cache: from there,
// past it, and from there again.
func TestOpenMediumReadsTheDisk(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	want := make([]byte, 1<<20+1000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range want {
		want[i] = byte(r.Uint32())
	}
	f, err := OS.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	read := func(f File, err error) int64 {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		before, got := diskReads(t), make([]byte, 2<<20)
		n, err := f.ReadAt(got, 0)
		if err != io.EOF || !bytes.Equal(got[:n], want) {
			t.Fatalf("read %d bytes of %d: %v", n, len(want), err)
		}
		return diskReads(t) - before
	}
	if n := read(OS.Open(name)); n != 0 {
		t.Skipf("a file just written is not in the cache: %d bytes from disk", n)
	}
	if n := read(OpenMedium(OS, name)); n < 1<<20 {
		medium, _ := OpenMedium(OS, name)
		if _, ok := medium.(mediumFile); !ok {
			t.Skip("no direct reads on this file system")
		}
		t.Errorf("%d bytes from disk", n)
	}
	if n := read(OS.Open(name)); n != 0 {
		t.Errorf("%d bytes are not in the cache any more", n)
	}
}

// Reads that no disk can do directly, and other file systems, are served all the same.
func TestOpenMediumAnyRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	want := []byte(strings.Repeat("0123456789", 2000))
	if err := os.WriteFile(name, want, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := OpenMedium(OS, name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct{ off, n int }{{0, 1}, {4096, 4096}, {1, 8192}, {19990, 10}, {0, 20000}} {
		got := make([]byte, c.n+1)[1:] // at an odd address
		if n, err := f.ReadAt(got, int64(c.off)); n != c.n || !bytes.Equal(got, want[c.off:c.off+c.n]) {
			t.Errorf("%d bytes at %d: %d, %v", c.n, c.off, n, err)
		}
	}
	if size, err := f.Size(); err != nil || size != int64(len(want)) {
		t.Errorf("size %d, %v", size, err)
	}
	if _, err := OpenMedium(OS, name+"x"); !os.IsNotExist(err) {
		t.Errorf("a missing file: %v", err)
	}
	mem := NewMem()
	if err := mem.WriteFile("f", want); err != nil {
		t.Fatal(err)
	}
	m, err := OpenMedium(mem, "f")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 10)
	if _, err := m.ReadAt(got, 15); err != nil || string(got) != "5678901234" {
		t.Errorf("in memory: %q, %v", got, err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

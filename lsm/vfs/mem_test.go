package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// must fails the test on an error of a step that is only preparation.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, f FS, name string) File {
	t.Helper()
	h, err := f.Create(name)
	must(t, err)
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func write(t testing.TB, f File, off int64, s string) {
	t.Helper()
	n, err := f.WriteAt([]byte(s), off)
	must(t, err)
	if n != len(s) {
		t.Fatalf("wrote %d of %d bytes without an error", n, len(s))
	}
}

func content(t testing.TB, m *Mem, name string) string {
	t.Helper()
	data, err := m.ReadFile(name)
	must(t, err)
	return string(data)
}

func TestReadAtEnds(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f")
	write(t, f, 0, "0123456789")
	for _, c := range []struct {
		off  int64
		size int
		want string
		err  error
	}{
		{0, 10, "0123456789", nil},
		{0, 4, "0123", nil},
		{6, 4, "6789", nil},
		{6, 5, "6789", io.EOF},
		{10, 1, "", io.EOF},
		{1 << 40, 1, "", io.EOF},
		{10, 0, "", nil},
	} {
		p := make([]byte, c.size)
		n, err := f.ReadAt(p, c.off)
		if string(p[:n]) != c.want || err != c.err {
			t.Errorf("%d at %d: %q, %v, want %q, %v", c.size, c.off, p[:n], err, c.want, c.err)
		}
	}
	if _, err := f.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("a negative offset was read")
	}
}

func TestHolesReadAsZeros(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f")
	write(t, f, 3*pageBytes+7, "x")
	want := append(make([]byte, 3*pageBytes+7), 'x')
	if got := content(t, m, "f"); got != string(want) {
		t.Errorf("%d bytes, want %d with a gap of zeros", len(got), len(want))
	}
	must(t, f.Truncate(5))
	must(t, f.Truncate(10))
	if got := content(t, m, "f"); got != string(make([]byte, 10)) {
		t.Errorf("after cut and growth %q, want zeros", got)
	}
}

func TestClosedHandle(t *testing.T) {
	for name, fsys := range map[string]FS{"OS": OS, "Mem": NewMem()} {
		dir := t.TempDir()
		must(t, fsys.MkdirAll(dir))
		f, err := fsys.Create(dir + "/f")
		must(t, err)
		must(t, f.Close())
		lock, err := fsys.Lock(dir + "/LOCK")
		must(t, err)
		must(t, lock.Close())
		for op, do := range map[string]func() error{
			"ReadAt":   func() error { _, err := f.ReadAt(make([]byte, 1), 0); return err },
			"WriteAt":  func() error { _, err := f.WriteAt([]byte("x"), 0); return err },
			"Size":     func() error { _, err := f.Size(); return err },
			"Truncate": func() error { return f.Truncate(0) },
			"Sync":     f.Sync,
			"Close":    f.Close,
			"Unlock":   lock.Close,
		} {
			if err := do(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s: %s after Close: %v, want os.ErrClosed", name, op, err)
			}
		}
	}
}

func TestRemovedFileLivesOnInItsHandle(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f")
	write(t, f, 0, "old")
	must(t, m.Remove("f"))
	g := create(t, m, "f")
	write(t, g, 0, "new!")
	write(t, f, 3, "er")
	p := make([]byte, 5)
	if _, err := f.ReadAt(p, 0); err != nil || string(p) != "older" {
		t.Errorf("the removed file reads %q, %v", p, err)
	}
	if got := content(t, m, "f"); got != "new!" {
		t.Errorf("the new file reads %q", got)
	}
}

func TestReadOnlyHandle(t *testing.T) {
	m := NewMem()
	must(t, m.WriteFile("f", []byte("abc")))
	f, err := m.Open("f")
	must(t, err)
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, syscall.EBADF) {
		t.Errorf("WriteAt: %v, want EBADF", err)
	}
	if err := f.Truncate(0); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("Truncate: %v, want EINVAL", err)
	}
	if got := content(t, m, "f"); got != "abc" {
		t.Errorf("changed to %q", got)
	}
}

func TestFarOffsetIsRefused(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f")
	for _, off := range []int64{fileBytesMax, 1 << 62, 1<<63 - 1} {
		if _, err := f.WriteAt([]byte("x"), off); !errors.Is(err, syscall.EFBIG) {
			t.Errorf("WriteAt %d: %v, want EFBIG", off, err)
		}
	}
	if err := f.Truncate(1 << 62); !errors.Is(err, syscall.EFBIG) {
		t.Errorf("Truncate: %v, want EFBIG", err)
	}
}

func TestOpenFilesCountsHandlesAndLocks(t *testing.T) {
	m := NewMem()
	expect := func(want int) {
		t.Helper()
		if got := m.OpenFiles(); got != want {
			t.Fatalf("OpenFiles = %d, want %d", got, want)
		}
	}
	expect(0)
	f, err := m.Create("f")
	must(t, err)
	g, err := m.Open("f")
	must(t, err)
	expect(2)
	l, err := m.Lock("LOCK")
	must(t, err)
	expect(3)
	if _, err := m.Lock("./LOCK"); !errors.Is(err, ErrLocked) {
		t.Fatalf("second Lock: %v, want ErrLocked", err)
	}
	expect(3)
	after := m.Crash(nil, KeepAll)
	if after.OpenFiles() != 0 {
		t.Error("a crashed disk has open files")
	}
	again, err := after.Lock("LOCK")
	must(t, err)
	must(t, again.Close())
	must(t, l.Close())
	must(t, f.Close())
	_ = f.Close()
	expect(1)
	must(t, g.Close())
	expect(0)
}

func TestCapacity(t *testing.T) {
	m := NewMem()
	must(t, m.WriteFile("other", make([]byte, 600)))
	m.SetCapacity(1000)
	f := create(t, m, "f")
	n, err := f.WriteAt(make([]byte, 500), 0)
	if n != 400 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("wrote %d, %v, want 400, ENOSPC", n, err)
	}
	if n, err := f.WriteAt([]byte("x"), 400); n != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("on a full disk wrote %d, %v", n, err)
	}
	if n, err := f.WriteAt([]byte("x"), 5000); n != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("past a gap wrote %d, %v", n, err)
	}
	if n, err := f.WriteAt(make([]byte, 20), 390); n != 10 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("over the end wrote %d, %v, want 10", n, err)
	}
	if err := f.Truncate(401); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Truncate: %v", err)
	}
	if err := m.WriteFile("third", []byte("x")); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("WriteFile: %v", err)
	}
	write(t, f, 0, "overwriting needs no room")

	held, err := m.Open("other")
	must(t, err)
	must(t, m.Remove("other"))
	if n, _ := f.WriteAt([]byte("x"), 400); n != 0 {
		t.Error("a removed file that is open gave its room away")
	}
	must(t, held.Close())
	write(t, f, 400, "room again")
	if got := m.UsedBytes(); got != 410 {
		t.Errorf("UsedBytes = %d, want 410", got)
	}
	after := m.Crash(nil, KeepAll)
	if got := after.UsedBytes(); got != 410 {
		t.Errorf("after a crash UsedBytes = %d, want 410", got)
	}
	must(t, after.Link("f", "linked"))
	after = after.Crash(nil, KeepAll)
	must(t, after.Remove("f"))
	if got := after.UsedBytes(); got != 410 {
		t.Errorf("with one of two names left UsedBytes = %d", got)
	}
	must(t, after.Remove("linked"))
	if got := after.UsedBytes(); got != 0 {
		t.Errorf("with no name left UsedBytes = %d", got)
	}
	m.SetCapacity(5) // below what there is: nothing grows, everything else goes on
	must(t, f.Truncate(100))
	if n, _ := f.WriteAt([]byte("xy"), 99); n != 1 {
		t.Errorf("wrote %d bytes, want the one that was there", n)
	}
	m.SetCapacity(-1)
	write(t, f, 100, "no limit")
	must(t, m.Remove("f"))
	must(t, f.Close())
	_ = m.Remove("third")
	if got := m.UsedBytes(); got != 0 {
		t.Errorf("UsedBytes of an empty disk = %d", got)
	}
}

func TestFlipByte(t *testing.T) {
	m := NewMem()
	must(t, m.WriteFile("f", bytes.Repeat([]byte("a"), 9000)))
	clean := m.Crash(nil, KeepNone)
	must(t, m.FlipByte("f", 8999, 'a'^'b'))
	f, err := m.OpenReadWrite("f")
	must(t, err)
	defer f.Close()
	write(t, f, 0, "dirty")
	must(t, m.FlipByte("f", 1, 'i'^'u'))
	must(t, m.FlipByte("f", 700, 'a'^'c'))
	for name, c := range map[string]struct {
		m    *Mem
		want string
	}{
		"live":    {m, "durtyaca" + "b"},
		"durable": {m.Crash(nil, KeepNone), "a" + string(rune('a'^'i'^'u')) + "aaaaca" + "b"},
		"earlier": {clean, "aaaaaaaa" + "a"},
	} {
		s := content(t, c.m, "f")
		if got := s[:5] + s[699:702] + s[8999:]; got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	for _, off := range []int64{-1, 9000, 1 << 40} {
		if err := m.FlipByte("f", off, 1); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("FlipByte at %d: %v, want EINVAL", off, err)
		}
	}
	if err := m.FlipByte("none", 0, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("FlipByte of no file: %v", err)
	}
}

func TestWriteFileIsDurableAtOnce(t *testing.T) {
	m := NewMem()
	must(t, m.WriteFile("f", []byte("first and long")))
	f, err := m.Open("f")
	must(t, err)
	defer f.Close()
	must(t, m.Rename("f", "g"))
	must(t, m.WriteFile("g", []byte("second")))
	for seed := range uint64(20) {
		if got := content(t, m.Crash(seeded(seed), Random), "g"); got != "second" {
			t.Errorf("g = %q", got)
		}
	}
	must(t, m.Remove("g"))
	must(t, m.WriteFile("g", []byte("third")))
	for seed := range uint64(20) {
		if got := content(t, m.Crash(seeded(seed), Random), "g"); got != "third" {
			t.Errorf("g = %q", got)
		}
	}
	p := make([]byte, 6)
	if _, err := f.ReadAt(p, 0); err != nil || string(p) != "second" {
		t.Errorf("through the old handle %q, %v", p, err)
	}
}

func TestDirectories(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("a/b/c"))
	must(t, m.MkdirAll("/a/b"))
	must(t, m.WriteFile("a/f", nil))
	names, err := m.List("a")
	must(t, err)
	if !slices.Equal(names, []string{"b", "f"}) {
		t.Errorf("List = %v", names)
	}
	for _, c := range []struct {
		what string
		err  error
		want error
	}{
		{"MkdirAll below a file", m.MkdirAll("a/f/x"), syscall.ENOTDIR},
		{"MkdirAll of nothing", m.MkdirAll(""), fs.ErrNotExist},
		{"Remove of a full directory", m.Remove("a/b"), syscall.ENOTEMPTY},
		{"Rename into itself", m.Rename("a", "a/b/x"), syscall.EINVAL},
		{"Rename over a directory", m.Rename("a/f", "a/b"), fs.ErrExist},
		{"Rename of a directory over a file", m.Rename("a/b", "a/f"), syscall.ENOTDIR},
		{"Rename of the root", m.Rename("/", "x"), syscall.EBUSY},
		{"Remove of the root", m.Remove("/"), syscall.EBUSY},
		{"Rename of nothing", m.Rename("x", "y"), fs.ErrNotExist},
		{"SyncDir of a file", m.SyncDir("a/f"), syscall.ENOTDIR},
		{"SyncDir of nothing", m.SyncDir("x"), fs.ErrNotExist},
		{"Link over a file", m.Link("a/f", "a/f"), fs.ErrExist},
		{"Link of a directory", m.Link("a/b", "x"), syscall.EPERM},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, c.err, c.want)
		}
	}
	must(t, m.Rename("a/b", "moved"))
	must(t, m.Remove("moved/c"))
	must(t, m.Remove("moved"))
}

func TestConcurrentUse(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("d"))
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(w)))
			for range 400 {
				name := fmt.Sprintf("d/%d", r.IntN(4))
				f, err := m.Create(name)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = f.WriteAt(make([]byte, r.IntN(9000)), int64(r.IntN(9000)))
				_ = f.Sync()
				_, _ = f.ReadAt(make([]byte, 5000), 100)
				_ = m.Rename(name, fmt.Sprintf("d/%d", r.IntN(4)))
				_ = m.Link(name, "d/linked")
				_ = m.Remove("d/linked")
				_ = f.Truncate(int64(r.IntN(5000)))
				if r.IntN(10) == 0 {
					_ = m.SyncDir("d")
					m.Crash(r, Garbage)
					_ = m.FlipByte(name, 0, 1)
				}
				_ = f.Close()
			}
		})
	}
	wg.Wait()
	if got := m.OpenFiles(); got != 0 {
		t.Errorf("%d files left open", got)
	}
	names, err := m.List("d")
	must(t, err)
	var sum int64
	for _, name := range names {
		size, err := m.Size("d/" + name)
		must(t, err)
		must(t, m.Remove("d/"+name))
		sum += size
	}
	if got := m.UsedBytes(); got != 0 {
		t.Errorf("UsedBytes = %d of an empty disk that held %d", got, sum)
	}
}

func TestHotPathsDoNotAllocate(t *testing.T) {
	fault := NewFault(NewMem(), func(Op) error { return nil })
	for name, fsys := range map[string]FS{"OS": OS, "Mem": NewMem(), "Fault": fault} {
		dir := t.TempDir()
		must(t, fsys.MkdirAll(dir))
		f := create(t, fsys, dir+"/f")
		p := make([]byte, 6000)
		for op, do := range map[string]func([]byte, int64) (int, error){
			"WriteAt": f.WriteAt, "ReadAt": f.ReadAt,
		} {
			if n := testing.AllocsPerRun(100, func() { _, _ = do(p, 100) }); n != 0 {
				t.Errorf("%s.%s allocates %v times", name, op, n)
			}
		}
	}
}

func BenchmarkMemReadAt(b *testing.B) {
	m := NewMem()
	must(b, m.WriteFile("f", make([]byte, 1<<20)))
	f, err := m.Open("f")
	must(b, err)
	defer f.Close()
	for _, size := range []int{100, 4096} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.SetBytes(int64(size))
			p := make([]byte, size)
			for i := 0; b.Loop(); i++ {
				_, _ = f.ReadAt(p, int64(i*4099%(1<<20-4096)))
			}
		})
	}
}

func BenchmarkMemAppendSync(b *testing.B) {
	m := NewMem()
	f, err := m.Create("f")
	must(b, err)
	defer f.Close()
	p := make([]byte, 200)
	for i := 0; b.Loop(); i++ {
		_, _ = f.WriteAt(p, int64(i%(1<<18)*len(p)))
		_ = f.Sync()
	}
}

func BenchmarkMemCrash(b *testing.B) {
	m := NewMem()
	for i := range 20 {
		must(b, m.WriteFile(fmt.Sprint(i), make([]byte, 1<<20)))
	}
	f, err := m.OpenReadWrite("7")
	must(b, err)
	defer f.Close()
	_, _ = f.WriteAt(make([]byte, 1<<16), 0)
	r := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		m.Crash(r, Random)
	}
}

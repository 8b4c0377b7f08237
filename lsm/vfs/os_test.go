package vfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// lockVariable makes the test binary take the lock it names, say so, and hold it until killed.
const lockVariable = "VFS_TEST_LOCK"

// otherUserVariable makes it do so as a user who may do little, if it runs as root.
const otherUserVariable = "VFS_TEST_OTHER_USER"

func TestMain(m *testing.M) {
	if name := os.Getenv(lockVariable); name != "" {
		if os.Getenv(otherUserVariable) != "" {
			_ = syscall.Setuid(65534) // who is not root is such a user
		}
		if _, err := OS.Lock(name); err != nil {
			fmt.Println("refused:", errors.Is(err, ErrLocked))
			os.Exit(0)
		}
		fmt.Println("locked")
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// lockElsewhere tries to take a lock in another process and returns what that says.
func lockElsewhere(t *testing.T, name string, env ...string) (string, *exec.Cmd) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	child := exec.Command(self)
	child.Env = append(append(os.Environ(), lockVariable+"="+name), env...)
	stdin, err := child.StdinPipe()
	must(t, err)
	stdout, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	must(t, err)
	return line, child
}

func TestLockAcrossProcesses(t *testing.T) {
	name := t.TempDir() + "/LOCK"
	line, child := lockElsewhere(t, name)
	if line != "locked\n" {
		t.Fatalf("the other process says %q", line)
	}
	if _, err := OS.Lock(name); !errors.Is(err, ErrLocked) {
		t.Fatalf("Lock while another process holds it: %v, want ErrLocked", err)
	}
	must(t, child.Process.Kill())
	_ = child.Wait()
	l, err := OS.Lock(name)
	if err != nil {
		t.Fatalf("Lock after the holder was killed: %v", err)
	}
	if line, _ := lockElsewhere(t, name); line != "refused: true\n" {
		t.Fatalf("the other process says %q", line)
	}
	must(t, l.Close())
	if line, _ := lockElsewhere(t, name); line != "locked\n" {
		t.Fatalf("the other process says %q", line)
	}
}

// TestLockWithoutWriting: who may only read the file is refused while it is locked, and can lock it.
func TestLockWithoutWriting(t *testing.T) {
	dir := t.TempDir()
	must(t, errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755)))
	name := dir + "/LOCK"
	l, err := OS.Lock(name)
	must(t, err)
	must(t, os.Chmod(name, 0o444))
	if line, _ := lockElsewhere(t, name, otherUserVariable+"=1"); line != "refused: true\n" {
		t.Errorf("while it is locked the other user says %q", line)
	}
	must(t, l.Close())
	if line, _ := lockElsewhere(t, name, otherUserVariable+"=1"); line != "locked\n" {
		t.Errorf("the other user says %q", line)
	}
	if _, err := OS.Lock(name); !errors.Is(err, ErrLocked) {
		t.Errorf("Lock while the other user has it: %v, want ErrLocked", err)
	}
}

func TestLockWithinTheProcess(t *testing.T) {
	for name, fsys := range map[string]FS{"OS": OS, "Mem": NewMem(), "Fault": NewFault(OS, nil)} {
		dir := t.TempDir()
		must(t, fsys.MkdirAll(dir))
		l, err := fsys.Lock(dir + "/LOCK")
		must(t, err)
		if _, err := fsys.Lock(dir + "/LOCK"); !errors.Is(err, ErrLocked) {
			t.Errorf("%s: second Lock: %v, want ErrLocked", name, err)
		}
		other, err := fsys.Lock(dir + "/OTHER")
		must(t, err)
		must(t, other.Close())
		must(t, l.Close())
		l, err = fsys.Lock(dir + "/LOCK")
		must(t, err)
		must(t, l.Close())
		if _, err := fsys.Lock(dir + "/none/LOCK"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: Lock in no directory: %v", name, err)
		}
	}
}

// TestUnlockWithADuplicateOpen stands for a fork at the wrong moment: the child has the open file
// until its exec.
func TestUnlockWithADuplicateOpen(t *testing.T) {
	name := t.TempDir() + "/LOCK"
	l, err := OS.Lock(name)
	must(t, err)
	must(t, l.(lock).f.control("dup", func(fd int) error {
		twin, err := unix.Dup(fd)
		t.Cleanup(func() { _ = unix.Close(twin) })
		return err
	}))
	must(t, l.Close())
	l, err = OS.Lock(name)
	if err != nil {
		t.Fatalf("closed, but still held by the duplicate: %v", err)
	}
	must(t, l.Close())
}

func TestSyncOfTheSystem(t *testing.T) {
	dir := t.TempDir()
	f := create(t, OS, dir+"/f")
	write(t, f, 0, "abc")
	must(t, f.Sync())
	must(t, OS.SyncDir(dir))
	if err := OS.SyncDir(dir + "/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("SyncDir of nothing: %v", err)
	}
	info, err := os.Stat(dir + "/f")
	must(t, err)
	if info.Mode().Perm()&0o600 != 0o600 || info.Size() != 3 {
		t.Errorf("the file is %v, %d bytes", info.Mode(), info.Size())
	}
}

// outcome is what one operation did on one file system.
type outcome struct {
	what string
	err  error
}

// alike reports whether two outcomes are one to a caller: same result, same error number.
func alike(a, b outcome) bool {
	var x, y syscall.Errno
	errors.As(a.err, &x)
	errors.As(b.err, &y)
	for _, known := range []error{io.EOF, os.ErrClosed, ErrLocked, os.ErrNotExist, os.ErrExist} {
		if errors.Is(a.err, known) != errors.Is(b.err, known) {
			return false
		}
	}
	sameNumber := x == y || runtime.GOOS != "linux"
	return a.what == b.what && (a.err == nil) == (b.err == nil) && sameNumber
}

// side is one of the two file systems with the handles opened on it.
type side struct {
	fs    FS
	files []File
	locks []io.Closer
}

// do carries out one random operation. Both sides are given equal sources of randomness, and r is
// drawn from the same way whatever the outcome.
func (s *side) do(r *rand.Rand, dir string) outcome {
	paths := []string{"a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "a/x", "none/x", "LOCK"}
	name, other := dir+"/"+paths[r.IntN(len(paths))], dir+"/"+paths[r.IntN(len(paths))]
	kind, slot := r.IntN(18), r.IntN(8)
	off, size := int64(r.IntN(12000)-10), 1+r.IntN(6000)
	if kind >= 12 {
		return s.doFile(kind, slot, off, size, byte(r.Uint32()))
	}
	var f File
	var err error
	var what string
	switch kind {
	case 0, 1:
		what = "Create " + name
		f, err = s.fs.Create(name)
	case 2:
		what = "Open " + name
		f, err = s.fs.Open(name)
	case 3:
		what = "OpenReadWrite " + name
		f, err = s.fs.OpenReadWrite(name)
	case 4, 5:
		what, err = "Rename "+name+" "+other, s.fs.Rename(name, other)
	case 6:
		what, err = "Link "+name+" "+other, s.fs.Link(name, other)
	case 7:
		what, err = "Remove "+name, s.fs.Remove(name)
	case 8:
		what, err = "MkdirAll "+name, s.fs.MkdirAll(name)
	case 9:
		var names []string
		names, err = s.fs.List(name)
		what = fmt.Sprint("List ", name, names)
	case 10:
		var size int64
		size, err = s.fs.Size(name)
		what = fmt.Sprint("Size ", name, size)
	case 11:
		what = fmt.Sprint("Lock or unlock ", len(s.locks))
		if len(s.locks) > 0 && slot < 4 {
			err = s.locks[0].Close()
			s.locks = s.locks[1:]
		} else if l, lockErr := s.fs.Lock(dir + "/LOCK"); lockErr == nil {
			s.locks = append(s.locks, l)
		} else {
			err = lockErr
		}
	}
	if f != nil {
		if len(s.files) >= 8 {
			_ = s.files[slot].Close()
			s.files = slices.Delete(s.files, slot, slot+1)
		}
		s.files = append(s.files, f)
	}
	return outcome{what, err}
}

func (s *side) doFile(kind, slot int, off int64, size int, fill byte) outcome {
	if slot >= len(s.files) {
		return outcome{}
	}
	f := s.files[slot]
	p := make([]byte, size)
	switch kind {
	case 12, 13:
		for i := range p {
			p[i] = fill + byte(i)
		}
		n, err := f.WriteAt(p, off)
		return outcome{fmt.Sprint("WriteAt ", off, len(p), n), err}
	case 14, 15:
		n, err := f.ReadAt(p, off)
		return outcome{fmt.Sprintf("ReadAt %d %d %d %x", off, len(p), n, p[:n]), err}
	case 16:
		err := f.Truncate(off)
		size, sizeErr := f.Size()
		return outcome{fmt.Sprint("Truncate ", off, size, sizeErr == nil), err}
	}
	if fill%4 == 0 { // the closed handle stays in its slot, to be used again
		return outcome{"Close", f.Close()}
	}
	return outcome{"Sync", f.Sync()}
}

// TestMemBehavesLikeTheSystem runs the same random operations on Mem and on OS.
func TestMemBehavesLikeTheSystem(t *testing.T) {
	failed, done := map[string]int{}, 0
	for seed := range uint64(8) {
		dir := t.TempDir()
		mem := NewMem()
		must(t, mem.MkdirAll(dir))
		sides := [2]side{{fs: OS}, {fs: mem}}
		random := [2]*rand.Rand{seeded(seed), seeded(seed)}
		for i := range 600 {
			a, b := sides[0].do(random[0], dir), sides[1].do(random[1], dir)
			if !alike(a, b) {
				t.Fatalf("seed %d, step %d:\nOS:  %.200s: %v\nMem: %.200s: %v",
					seed, i, a.what, a.err, b.what, b.err)
			}
			var errno syscall.Errno
			if errors.As(a.err, &errno) {
				failed[errno.Error()]++
			} else if a.err == nil && a.what != "" {
				done++
			}
		}
		for i := range sides {
			for _, f := range sides[i].files {
				_ = f.Close()
			}
			for _, l := range sides[i].locks {
				must(t, l.Close())
			}
		}
		if n := mem.OpenFiles(); n != 0 {
			t.Fatalf("seed %d: %d handles left", seed, n)
		}
	}
	if done < 1500 || len(failed) < 6 {
		t.Errorf("too tame: %d operations succeeded, errors were %v", done, failed)
	}
}

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kvd/lsm"
)

// inNamespace is set in the process that has a mount namespace of its own.
const inNamespace = "KVD_TEST_IN_NAMESPACE"

const mayNotMount = "may not mount:"

// TestProcessDiskFull runs nodes on a small file system that fills up, and gets room again: writes
// are refused by name, reads go on, nothing that was acknowledged is lost, whatever kills the node
// meanwhile, and with room again writes go on by themselves.
//
// The file system is mounted in a namespace of a process of its own, and ends with that.
func TestProcessDiskFull(t *testing.T) {
	if os.Getenv(inNamespace) != "" {
		fillDisks(t)
		return
	}
	s := drawSeed(t)
	attributes := []*syscall.SysProcAttr{{Cloneflags: syscall.CLONE_NEWNS}, {
		Cloneflags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}}
	var reasons []error
	for _, a := range attributes {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProcessDiskFull$",
			"-test.v", fmt.Sprint("-seed=", s), fmt.Sprint("-budget=", *budget))
		cmd.Env = append(os.Environ(), inNamespace+"=1")
		cmd.SysProcAttr = a
		out, err := cmd.CombinedOutput()
		if len(out) == 0 && err != nil {
			reasons = append(reasons, err) // it did not even start
			continue
		}
		if _, reason, ok := strings.Cut(string(out), mayNotMount); ok {
			reason, _, _ = strings.Cut(reason, "\n")
			reasons = append(reasons, errors.New(strings.TrimSpace(reason)))
			continue
		}
		for line := range strings.Lines(string(out)) {
			if at := strings.Index(line, "proof: "); at >= 0 {
				t.Log(strings.TrimSpace(line[at:]))
			} else if at := strings.Index(line, "lives "); at >= 0 {
				t.Log(strings.TrimSpace(line[at:]))
			}
		}
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	t.Skipf("there is no way to mount a file system: %v", errors.Join(reasons...))
}

// smallDisk is a file system of a few megabytes.
type smallDisk struct {
	t     *testing.T
	dir   string
	bytes int64
}

func mountSmallDisk(t *testing.T, bytes int64) *smallDisk {
	d := &smallDisk{t: t, dir: t.TempDir(), bytes: bytes}
	if err := unix.Mount("none", d.dir, "tmpfs", 0, fmt.Sprint("size=", bytes)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(d.dir, unix.MNT_DETACH) })
	return d
}

func (d *smallDisk) resize(bytes int64) {
	d.t.Helper()
	if err := unix.Mount("none", d.dir, "", unix.MS_REMOUNT, fmt.Sprint("size=", bytes)); err != nil {
		d.t.Fatalf("from %d to %d bytes: %v", d.bytes, bytes, err)
	}
	d.bytes = bytes
}

func (d *smallDisk) used() int64 {
	var s unix.Statfs_t
	if err := unix.Statfs(d.dir, &s); err != nil {
		d.t.Error(err)
	}
	return int64(s.Blocks-s.Bfree) * s.Bsize
}

// fillDisks is TestProcessDiskFull in its namespace.
func fillDisks(t *testing.T) {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		dir := t.TempDir()
		if err = unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err == nil {
			err = unix.Unmount(dir, 0)
		}
	}
	if err != nil {
		t.Skip(mayNotMount, err)
	}
	began := time.Now()
	for i := range diskLanes {
		t.Run(fmt.Sprintf("lane%d", i), func(t *testing.T) {
			t.Parallel()
			for disk := uint64(0); disk == 0 || time.Since(began) < *budget; disk++ {
				t.Run("disk", func(t *testing.T) { fillOneDisk(t, *seed+disk<<8+uint64(i), i) })
				if t.Failed() {
					return
				}
			}
		})
	}
}

// fillOneDisk fills a small disk some times. The first round is the one of that number.
func fillOneDisk(t *testing.T, seed uint64, round int) {
	r := rand.New(rand.NewPCG(seed, 11))
	size := int64(4<<20 + r.IntN(3)<<20)
	if *budget > 0 {
		size += int64(r.IntN(12)) << 20
	}
	disk := mountSmallDisk(t, size)
	// Twice as many bytes as fit.
	const writers, meanBytes = 4, 8 << 10
	l := newLane(t, seed, writers, int(2*size/(writers*meanBytes)))
	defer l.report()
	l.data = filepath.Join(disk.dir, "data")
	l.choose = chooseFilling
	l.args = []string{"--memtable", fmt.Sprintf("%dKiB", 64<<r.IntN(3)), "--cache", "1MiB"}
	l.open()
	l.check(true)
	rounds := 1
	if *budget > 0 {
		rounds += l.r.IntN(4)
	}
	for i := range rounds {
		l.fill(disk, round+i)
	}
	disk.resize(64 << 20)
	w := l.workOnFull()
	l.awaitWrites(disk, w, 10)
	l.rest()
	l.signal(syscall.SIGTERM)
	if code := l.awaitExit(); code != exitDone {
		t.Errorf("the node ends with %d after SIGTERM", code)
	}
	l.ended()
	l.open()
	l.check(true)
	l.signal(syscall.SIGKILL)
	l.awaitExit()
	l.ended()
}

// chooseFilling chooses operations that fill a disk.
func chooseFilling(r *rand.Rand, w *writerRecord) (lsm.Durability, []change) {
	class := lsm.Durability(r.IntN(3))
	name := w.free(r)
	switch pick := r.IntN(100); {
	case name == "":
		return class, nil
	case pick < 5:
		return class, []change{{name, -1}}
	case pick < 10:
		return class, []change{{name, 100000 + r.IntN(100000)}}
	case pick < 20 && !w.groupInDoubt():
		changes := []change{{name, r.IntN(16 << 10)}}
		for _, other := range w.names[:groupKeys] {
			changes = append(changes, change{other, 500})
		}
		return class, changes
	}
	return class, []change{{name, r.IntN(16 << 10)}}
}

// fill fills the disk under a node that is open, does something to the node, makes room, and sees
// the writes go on.
func (l *lane) fill(disk *smallDisk, round int) {
	t := l.t
	ballast := filepath.Join(disk.dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20+l.r.IntN(1<<19)), 0o600); err != nil {
		_ = os.Remove(ballast) // there was no room for it: as full as it gets
	}
	w := l.fillUntilFull()
	l.measure()
	l.lookAround()
	running := true
	switch round % 3 {
	case 0: // killed while full
		l.signal(syscall.SIGKILL)
		l.awaitExit()
		l.ended()
		running = l.reopenFull(disk)
	case 1:
	case 2: // stopped while full
		l.signal(syscall.SIGTERM)
		orderly := l.awaitExit() == exitDone
		l.ended()
		if running = l.tryReopenFull(disk); running {
			l.check(orderly)
		}
	}
	if running && l.load == nil {
		w = l.workOnFull()
	}
	acked := w.acked.Load()
	smaller := l.makeRoom(disk, ballast)
	if pick := l.r.IntN(4); running && pick < 2 {
		if pick == 0 {
			l.pause(time.Second) // amid the attempts to go on
		} else {
			l.measure()                     // which takes too long at that moment
			l.awaitWrites(disk, w, acked+1) // when they have just succeeded
		}
		l.signal(syscall.SIGKILL)
		l.awaitExit()
		l.ended()
		// By then the writers may have filled the disk again.
		running = l.reopenFull(disk)
		disk.resize(disk.bytes + 4<<20)
		if running {
			w, acked = l.workOnFull(), 0
		}
	}
	if !running {
		l.open()
		l.check(false)
		w, acked = l.workOnFull(), 0
	}
	l.awaitWrites(disk, w, acked+10)
	if smaller > 0 {
		l.deleteMost(disk, ballast, smaller)
	}
	if t.Failed() {
		t.FailNow()
	}
	l.rest()
}

// workOnFull lets clients loose that expect to be refused.
func (l *lane) workOnFull() *load {
	l.load = &load{t: l.t, rec: l.rec, clients: l.clients, choose: l.choose,
		fullFor: time.Millisecond}
	l.load.start(l.r, 1)
	return l.load
}

// fillUntilFull writes until every writer has been told that the disk is full.
func (l *lane) fillUntilFull() *load {
	l.t.Helper()
	w := l.workOnFull()
	told := 0
	full := l.await(func() bool {
		told = 0
		for i := range w.full {
			if w.full[i].Load() >= 2 {
				told++
			}
		}
		return told == len(w.full)
	})
	if !full {
		l.t.Fatalf("after %d writes only %d writers were told that the disk is full", w.acked.Load(),
			told)
	}
	l.fills++
	return w
}

// lookAround reads everything of a node that refuses writes.
func (l *lane) lookAround() {
	l.t.Helper()
	floors := map[string]int{}
	for _, w := range l.rec.writers {
		for _, name := range w.names {
			floors[name] = w.floor(name)
		}
	}
	there, err := scanned(l.t.Context(), l.clients[2])
	if err != nil {
		l.t.Fatalf("reading while the disk is full: %v", err)
	}
	for name, floor := range floors {
		value, ok := there[name]
		if _, err := l.rec.writerOf(name).seen(name, value, ok, floor); err != nil {
			l.t.Fatalf("while the disk is full: %v", err)
		}
	}
}

// failedStartBytes is what starts that fail may leave behind, however many there are: a log.
const failedStartBytes = 32 << 10

// tryReopenFull starts a node while the disk is full. It may fail, if it says so and leaves no
// more behind with every attempt.
func (l *lane) tryReopenFull(disk *smallDisk) bool {
	l.t.Helper()
	before := disk.used()
	for range 3 {
		err := l.tryOpen()
		if err == nil {
			l.events["opened while full"]++
			return true
		}
		l.events["not opened while full"]++
		if !strings.Contains(err.Error(), "no space left on device") ||
			!strings.Contains(err.Error(), "nothing is lost: free some space") {
			l.t.Fatalf("a node that does not start on a full disk says: %v", err)
		}
		l.verify()
		if used := disk.used(); used > before+failedStartBytes {
			l.t.Errorf("starts that failed took %d bytes of a full disk", used-before)
		}
	}
	return false
}

func (l *lane) reopenFull(disk *smallDisk) bool {
	l.t.Helper()
	if !l.tryReopenFull(disk) {
		return false
	}
	l.check(false)
	return true
}

// makeRoom gives the disk room. If that is only for deletes to make more it returns the size that
// the disk has without.
func (l *lane) makeRoom(disk *smallDisk, ballast string) (smaller int64) {
	_, err := os.Stat(ballast)
	switch pick := l.r.IntN(3); {
	case pick == 0 && err == nil:
		if err := os.Remove(ballast); err != nil {
			l.t.Fatal(err)
		}
		l.events["ballast removed"]++
	case pick <= 1 && disk.bytes < 32<<20:
		disk.resize(disk.bytes + 2<<20)
		l.events["disk grown"]++
	default:
		smaller = disk.bytes
		disk.resize(disk.bytes + 4<<20)
		l.events["most deleted"]++
	}
	return smaller
}

// awaitWrites waits until the writes go on: until so many were acknowledged.
func (l *lane) awaitWrites(disk *smallDisk, w *load, n int64) {
	l.t.Helper()
	began := time.Now()
	if !l.await(func() bool { return w.acked.Load() >= n }) {
		text, _ := os.ReadFile(l.log())
		l.t.Fatalf("writes do not go on although there is room; of %d bytes %d are used, %d writes "+
			"acknowledged, %d in doubt, %d wanted; the node said: %s", disk.bytes, disk.used(),
			w.acked.Load(), w.doubts.Load(), n, text[max(0, len(text)-4000):])
	}
	l.healed = append(l.healed, time.Since(began))
}

// deleteMost deletes most keys and compacts, for which a disk needs room. Afterwards everything has
// room on the smaller one that was full before, of which the ballast has its part still.
func (l *lane) deleteMost(disk *smallDisk, ballast string, smaller int64) {
	l.t.Helper()
	var others int64
	if b, err := os.Stat(ballast); err == nil {
		others = b.Size()
	}
	disk.resize(2 * disk.bytes)
	l.awaitWrites(disk, l.load, l.load.acked.Load()+10)
	l.rest()
	next := make([]int, len(l.rec.writers))
	l.choose = func(r *rand.Rand, w *writerRecord) (lsm.Durability, []change) {
		var changes []change
		for ; next[w.id] < len(w.names)*9/10 && len(changes) < 20; next[w.id]++ {
			w.mu.Lock()
			if name := w.names[next[w.id]]; next[w.id] >= groupKeys && !w.keys[name].inDoubt() {
				changes = append(changes, change{name, -1})
			}
			w.mu.Unlock()
		}
		return lsm.Async, changes
	}
	w := l.workOnFull()
	l.choose = chooseFilling
	w.writing.Wait() // they end with the last key
	if err := l.clients[2].Compact(w.ctx, nil, nil); err != nil {
		l.t.Errorf("compact: %v", err)
	}
	if !l.await(func() bool { return disk.used()-others < (smaller-others)*3/4 }) {
		l.t.Fatalf("%d bytes are used, of %d that were full, after most was deleted and compacted",
			disk.used()-others, smaller-others)
	}
	l.rest()
	disk.resize(smaller)
}

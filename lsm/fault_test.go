package lsm

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"kvd/lsm/vfs"
)

var (
	faultAll  = flag.Bool("fault.all", false, "fail every operation of the fault test in every way")
	faultSeed = flag.Uint64("fault.seed", 1, "seed of the sample of faults")
	faultCase = flag.String("fault.case", "", "run this case only, as a failure prints it")
)

// faultKind is a way in which operations fail.
type faultKind uint8

const (
	faultIO    faultKind = iota // any operation: EIO
	faultFull                   // one that writes: ENOSPC
	faultShort                  // a WriteAt writes half, then EIO
	faultSync                   // a Sync or SyncDir: EIO
	faultKinds
)

func (k faultKind) String() string { return [...]string{"EIO", "ENOSPC", "short", "sync"}[k] }

func (k faultKind) err() error {
	if k == faultFull {
		return syscall.ENOSPC
	}
	return syscall.EIO
}

func (k faultKind) hits(o vfs.Op) bool {
	switch k {
	case faultFull:
		return o.Kind.Writes() && o.Kind != vfs.OpSync
	case faultShort:
		return o.Kind == vfs.OpWriteAt
	case faultSync:
		return o.Kind == vfs.OpSync || o.Kind == vfs.OpSyncDir
	}
	return true
}

// fault is a case: the operation from which on things fail.
type fault struct {
	at      uint64 // counted from 1; 0 is no fault
	kind    faultKind
	forever bool
}

func (f fault) String() string { return fmt.Sprintf("%d/%v/%v", f.at, f.kind, f.forever) }

// TestEveryOperationFails runs a workload through every part of the engine and makes the i-th
// operation on the file system fail, for i and ways to fail: a sample of them, or with -fault.all
// each. Whatever fails, every call returns, with nil or a typed error; what was acknowledged is
// there, in this instance and, the fault gone, after a reopening; every other batch is there whole
// or not at all; files, locks and goroutines are given back. A bubble of testing/synctest
// makes the waits for room take no time and reports it when everybody waits for ever.
func TestEveryOperationFails(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	if *faultCase != "" {
		runFault(t, parseFault(t, *faultCase))
		return
	}
	ops := runFault(t, fault{})
	cases := 0
	r := rand.New(rand.NewPCG(*faultSeed, 1))
	share := float64(faultCasesDefault) / float64(2*uint64(faultKinds)*ops)
	for at := uint64(1); at <= ops; at++ {
		for kind := range faultKinds {
			for _, forever := range []bool{false, true} {
				if (*faultAll || r.Float64() < share) && !t.Failed() {
					cases++
					runFault(t, fault{at, kind, forever})
				}
			}
		}
	}
	t.Logf("%d operations, %d cases", ops, cases)
}

func parseFault(t *testing.T, s string) fault {
	for kind := range faultKinds {
		f := fault{kind: kind}
		if n, _ := fmt.Sscanf(s, "%d/"+kind.String()+"/%t", &f.at, &f.forever); n == 2 {
			return f
		}
	}
	t.Fatalf("no fault: %q", s)
	return fault{}
}

// faultCommit is one write and what is known of it. Its unique keys are written by it only.
type faultCommit struct {
	n      int // of the unique keys
	key    string
	value  string
	delete bool
	must   bool
	synced bool // not only in the log buffer
}

type faultRun struct {
	t       *testing.T
	f       fault
	mem     *vfs.Mem
	fs      *vfs.Fault
	cleared atomic.Bool
	fired   atomic.Pointer[string]

	db      *DB
	broken  bool // this instance has said that it is read only
	commits []*faultCommit
	opened  int // commits before this instance
	step    int
}

func (r *faultRun) failf(format string, args ...any) {
	r.t.Helper()
	fired := "nothing"
	if s := r.fired.Load(); s != nil {
		fired = *s
	}
	r.t.Fatalf("step %d: %s\nfailed: %s\nrepeat: go test ./lsm -run TestEveryOperationFails "+
		"-fault.case=%v", r.step, fmt.Sprintf(format, args...), fired, r.f)
}

func (r *faultRun) inject(o vfs.Op) error {
	if r.f.at == 0 || o.N < r.f.at || r.cleared.Load() || !r.f.kind.hits(o) {
		return nil
	}
	if s := o.String(); !r.fired.CompareAndSwap(nil, &s) && !r.f.forever {
		return nil
	}
	if r.f.kind == faultShort {
		return vfs.ShortWrite(int(o.Len/2), syscall.EIO)
	}
	return r.f.kind.err()
}

// runFault runs one case and returns how many operations it had.
func runFault(t *testing.T, f fault) uint64 {
	watchdog := time.AfterFunc(time.Minute, func() { // in the time of the machine
		buf := make([]byte, 1<<20)
		panic(fmt.Sprintf("fault %v hangs\n%s", f, buf[:runtime.Stack(buf, true)]))
	})
	defer watchdog.Stop()
	r := &faultRun{t: t, f: f, mem: vfs.NewMem()}
	r.fs = vfs.NewFault(r.mem, r.inject)
	synctest.Test(t, func(t *testing.T) {
		r.t = t
		r.run()
	})
	return r.fs.Ops()
}

func (r *faultRun) run() {
	ok := r.open()
	for r.step = 1; ok && r.step <= faultSteps; r.step++ {
		ok = r.do(r.step)
	}
	if r.db != nil && r.f.kind == faultFull {
		if r.f.forever {
			r.cleared.Store(true)
		}
		r.awaitRoom()
	}
	r.cleared.Store(true)
	r.close()
	if !r.open() {
		r.failf("does not open without faults")
	}
	r.compare()
	r.write(100, Sync)
	if err := r.db.Check(); err != nil {
		r.failf("check: %v", err)
	}
	if err := r.db.Compact(context.Background(), nil, nil); err != nil {
		r.failf("compact: %v", err)
	}
	r.compare()
	if err := r.db.Check(); err != nil {
		r.failf("%v", err)
	}
	r.close()
}

const (
	faultSteps        = 120
	faultCasesDefault = 25 + defaultModelSeeds/20 // fewer under the race detector
)

// do is one step. It returns false when the database is gone for good.
func (r *faultRun) do(step int) bool {
	switch {
	case step == 45 || step == 90:
		r.close()
		return r.open()
	case step%20 == 13:
		r.check("flush", r.db.Flush())
	case step%40 == 27:
		r.check("compact", r.db.Compact(context.Background(), nil, nil))
	case step%60 == 35:
		r.checkpoint(fmt.Sprintf("copy%d", step))
	case step == 55: // a new manifest at the next edit
		r.db.installing.Lock()
		r.db.manifest.limit = 0
		r.db.installing.Unlock()
	case step%15 == 5:
		r.scan()
	case step%7 == 3:
		r.get(fmt.Sprintf("k%02d", step*5%faultKeys))
	default:
		r.write(step, Durability(step%3))
	}
	return true
}

const faultKeys = 20

// check demands that an error is one that callers are promised.
func (r *faultRun) check(doing string, err error) {
	switch {
	case err == nil:
	case errors.Is(err, ErrReadOnly):
		r.broken = true
		if r.f.kind == faultFull {
			r.failf("%s: a full disk is final: %v", doing, err)
		}
	case errors.Is(err, ErrDiskFull):
		if r.f.kind != faultFull {
			r.failf("%s: the disk is not full: %v", doing, err)
		}
	case errors.Is(err, ErrSuspended):
	case errors.Is(err, r.f.kind.err()) && r.fired.Load() != nil:
	default:
		r.failf("%s: %v", doing, err)
	}
}

func (r *faultRun) write(step int, d Durability) {
	c := &faultCommit{
		n:      len(r.commits),
		key:    fmt.Sprintf("k%02d", step*7%faultKeys),
		value:  fmt.Sprintf("%d %s", step, strings.Repeat("v", step*37%400)),
		delete: step%11 == 0,
	}
	r.commits = append(r.commits, c)
	var b Batch
	b.Put(c.unique(0), []byte(c.value))
	if c.delete {
		b.Delete([]byte(c.key))
	} else {
		b.Put([]byte(c.key), []byte(c.value))
	}
	b.Put(c.unique(1), []byte(c.value))
	broken := r.broken
	err := r.db.Apply(&b, d)
	r.check("write", err)
	if err != nil {
		return
	}
	if broken {
		r.failf("a write is acknowledged after one was refused for good")
	}
	c.must = true
	if c.synced = d != NoSync; c.synced { // it is behind all before it in the log
		for _, c := range r.commits[r.opened:] {
			c.synced = true
		}
	}
}

func (c *faultCommit) unique(i int) []byte { return fmt.Appendf(nil, "u%04d-%d", c.n, i) }

// may returns what key may hold; "" is nothing.
func (r *faultRun) may(key string) map[string]bool {
	may := map[string]bool{"": true}
	for _, c := range r.commits {
		if c.key == key {
			if c.must {
				clear(may)
			}
			if c.delete {
				may[""] = true
			} else {
				may[c.value] = true
			}
		}
	}
	return may
}

func (r *faultRun) get(key string) {
	value, err := r.db.Get([]byte(key))
	if err != nil && !errors.Is(err, ErrNotFound) {
		if !errors.Is(err, syscall.EIO) || r.fired.Load() == nil || r.cleared.Load() {
			r.failf("get: %v", err)
		}
		return
	}
	if !r.may(key)[string(value)] {
		r.failf("%s is %.10q, %v; it may be %v", key, value, err, r.may(key))
	}
}

// scan reads everything, forward and backward, and sees whether it is what may be there.
func (r *faultRun) scan() {
	it := r.db.NewIter(IterOptions{})
	got := map[string]string{}
	for key, value := range it.All() {
		got[string(key)] = string(value)
	}
	n := 0
	for ok := it.Last(); ok; ok = it.Prev() {
		n++
		if got[string(it.Key())] != string(it.Value()) && r.fired.Load() == nil {
			r.failf("%s differs backward", it.Key())
		}
	}
	if err := it.Close(); err != nil {
		if !errors.Is(err, syscall.EIO) || r.fired.Load() == nil || r.cleared.Load() {
			r.failf("scan: %v", err)
		}
		return
	}
	if n != len(got) {
		r.failf("%d keys forward, %d backward", len(got), n)
	}
	for _, c := range r.commits {
		one, two := got[string(c.unique(0))], got[string(c.unique(1))]
		if one != two || one != "" && one != c.value || one == "" && c.must {
			r.failf("batch %d (must: %v) holds %.10q and %.10q, want %.10q",
				c.n, c.must, one, two, c.value)
		}
	}
	for i := range faultKeys {
		if key := fmt.Sprintf("k%02d", i); !r.may(key)[got[key]] {
			r.failf("%s is %.10q, it may be %v", key, got[key], r.may(key))
		}
	}
}

func (r *faultRun) compare() {
	r.scan()
	for i := range faultKeys {
		r.get(fmt.Sprintf("k%02d", i))
	}
}

// checkpoint makes a copy and, when it says that there is one, sees that it opens and is whole.
func (r *faultRun) checkpoint(dir string) {
	err := r.db.Checkpoint(dir)
	r.check("checkpoint", err)
	if err != nil {
		return
	}
	o := tinyOptions(r.mem)
	o.ReadOnly = true
	copied, err := Open(dir, o)
	if err != nil {
		r.failf("open the checkpoint: %v", err)
	}
	db := r.db
	r.db = copied
	r.scan()
	r.db = db
	if err := copied.Close(); err != nil {
		r.failf("close the checkpoint: %v", err)
	}
}

// open opens the database, a second time if the first was unlucky.
func (r *faultRun) open() bool {
	for range 2 {
		db, err := Open("data", tinyOptions(r.fs))
		if err == nil {
			r.db, r.broken, r.opened = db, false, len(r.commits)
			r.scan()
			return true
		}
		r.check("open", err)
		if n := r.mem.OpenFiles(); n != 0 {
			r.failf("%d files are open after Open failed: %v", n, err)
		}
	}
	if !r.f.forever || r.cleared.Load() {
		r.failf("Open fails twice")
	}
	return false
}

// close closes the database. If that fails, what was in the log buffer only may be lost.
func (r *faultRun) close() {
	if r.db == nil {
		return
	}
	err := r.db.Close()
	r.check("close", err)
	for _, c := range r.commits[r.opened:] {
		if err != nil && !c.synced {
			c.must = false
		}
	}
	r.db = nil
	if n := r.mem.OpenFiles(); n != 0 {
		r.failf("%d files are open after Close: %v", n, err)
	}
}

// awaitRoom waits for writes to resume by themselves.
func (r *faultRun) awaitRoom() {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if r.write(99, Sync); r.commits[len(r.commits)-1].must {
			return
		}
		if time.Since(began) > 5*time.Second {
			r.failf("there is room, but writes do not resume: %s", r.db.Metrics().State)
		}
	}
}

// TestFullDisk fills a disk up, waits and makes room.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		db := mustOpen(t, "data", tinyOptions(mem))
		acked := map[string]bool{}
		d := Sync
		put := func(i int) error {
			key := fmt.Sprintf("key%06d", i)
			err := db.Put([]byte(key), []byte(strings.Repeat(key, 20)), d)
			acked[key] = acked[key] || err == nil
			return err
		}
		has := func(when string) {
			t.Helper()
			for key, want := range acked {
				value, err := db.Get([]byte(key))
				if want && (err != nil || string(value) != strings.Repeat(key, 20)) {
					t.Fatalf("%s: %s is %q, %v", when, key, value, err)
				}
			}
		}
		next := 0
		for round := range 6 {
			d = Durability((round + 1) % 3)
			mem.SetCapacity(mem.UsedBytes() + 100<<10)
			var err error
			for ; err == nil; next++ {
				err = put(next)
			}
			if !errors.Is(err, ErrDiskFull) || !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("round %d: %v", round, err)
			}
			has("full")
			files, _ := mem.List("data")
			began := time.Now()
			for range 100 {
				if next++; !errors.Is(put(next), ErrDiskFull) {
					t.Fatal("a write succeeds on a full disk, or fails otherwise")
				}
			}
			if d := time.Since(began); d > 0 {
				t.Errorf("writes on a full disk wait for %v", d)
			}
			time.Sleep(time.Hour)
			has("full for an hour")
			if now, _ := mem.List("data"); len(now) > len(files)+4 {
				t.Errorf("in an hour without room the files grew from %v to %v", files, now)
			}
			mem.SetCapacity(-1)
			began = time.Now()
			for next++; put(next) != nil; next++ {
				if time.Since(began) > 3*time.Second {
					t.Fatal("writes do not resume")
				}
				time.Sleep(50 * time.Millisecond)
			}
			has("room again")
		}
		mustClose(t, db)
		db = mustOpen(t, "data", tinyOptions(mem))
		has("reopened")
		if err := db.Check(); err != nil {
			t.Error(err)
		}
		mustClose(t, db)
	})
}

// failingFS fails the operations that match while it is armed.
type failingFS struct {
	*vfs.Fault
	mem   *vfs.Mem
	match func(vfs.Op) error
	armed atomic.Bool
}

func newFailingFS(match func(vfs.Op) error) *failingFS {
	f := &failingFS{mem: vfs.NewMem(), match: match}
	f.Fault = vfs.NewFault(f.mem, func(o vfs.Op) error {
		if f.armed.Load() {
			return f.match(o)
		}
		return nil
	})
	return f
}

// A flush whose edit did not fit on the disk had moved the start of the log in memory. The edit of
// a compaction next to it then made a manifest that needed neither the log nor the table.
func TestLogIsNeededUntilTheFlushIsInTheManifest(t *testing.T) {
	fsys := newFailingFS(func(o vfs.Op) error {
		if o.Kind == vfs.OpWriteAt && strings.Contains(o.Name, manifestPrefix) {
			return syscall.ENOSPC
		}
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", tinyOptions(fsys))
		if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
			t.Fatal(err)
		}
		fsys.armed.Store(true)
		if err := db.Flush(); !errors.Is(err, ErrDiskFull) {
			t.Fatalf("Flush: %v", err)
		}
		fsys.armed.Store(false)
		if err := db.install(&edit{}, nil); err != nil { // as a compaction would
			t.Fatal(err)
		}
		after := mustOpen(t, "data", tinyOptions(fsys.mem.Crash(nil, vfs.KeepNone)))
		if v, err := after.Get([]byte("k")); err != nil || string(v) != "v" {
			t.Errorf("after a crash: %q, %v", v, err)
		}
		mustClose(t, after)
		time.Sleep(time.Second)
		mustClose(t, db)
	})
}

// Close during a full disk sealed the log that was to replace the failed one, which vouched for
// what was in neither: the database did not open again.
func TestCloseOnFullDisk(t *testing.T) {
	fsys := newFailingFS(func(o vfs.Op) error {
		if o.Kind == vfs.OpCreate && strings.HasSuffix(o.Name, tableSuffix) ||
			o.Kind == vfs.OpWriteAt && strings.Contains(o.Name, logSuffix) && o.Off > 0 {
			return syscall.ENOSPC
		}
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", tinyOptions(fsys))
		if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
			t.Fatal(err)
		}
		fsys.armed.Store(true)
		if err := db.Put([]byte("k"), []byte("w"), Sync); !errors.Is(err, ErrDiskFull) {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		fsys.armed.Store(false) // the log has room, the tables had none
		if err := db.Close(); !errors.Is(err, ErrDiskFull) {
			t.Errorf("Close: %v", err)
		}
		db = mustOpen(t, "data", tinyOptions(fsys))
		if v, err := db.Get([]byte("k")); err != nil || string(v) != "v" && string(v) != "w" {
			t.Errorf("%q, %v", v, err)
		}
		mustClose(t, db)
	})
}

// A log that fails while no writer waits for it, in the background, went unnoticed by NoSync.
func TestNoSyncIsRefusedAfterTheLogFailed(t *testing.T) {
	fsys := newFailingFS(func(o vfs.Op) error {
		if o.Kind == vfs.OpClose && strings.Contains(o.Name, logSuffix) {
			return syscall.EIO
		}
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", tinyOptions(fsys))
		if err := db.Put([]byte("k"), []byte("v"), NoSync); err != nil {
			t.Fatal(err)
		}
		fsys.armed.Store(true) // the flush closes the old segment
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		fsys.armed.Store(false)
		for range 3 {
			err := db.Put([]byte("k"), []byte("v"), NoSync)
			if !errors.Is(err, ErrReadOnly) {
				t.Errorf("Put: %v", err)
			}
		}
		if err := db.Close(); !errors.Is(err, syscall.EIO) {
			t.Errorf("Close: %v", err)
		}
	})
}

// Only the last directory that Open made had a durable name.
func TestNewDirectoriesAreDurable(t *testing.T) {
	mem := vfs.NewMem()
	db := mustOpen(t, "a/b/data", tinyOptions(mem))
	if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
		t.Fatal(err)
	}
	if err := db.Checkpoint("c/d/copy"); err != nil {
		t.Fatal(err)
	}
	crashed := mem.Crash(nil, vfs.KeepNone)
	mustClose(t, db)
	for _, dir := range []string{"a/b/data", "c/d/copy"} {
		db := mustOpen(t, dir, tinyOptions(crashed))
		if v, err := db.Get([]byte("k")); err != nil || string(v) != "v" {
			t.Errorf("%s after a crash: %q, %v", dir, v, err)
		}
		mustClose(t, db)
	}
}

// Closing a database that was opened from a medium on which no lock can be made panicked.
func TestReadOnlyWithoutALock(t *testing.T) {
	fsys := newFailingFS(func(o vfs.Op) error {
		if o.Kind.Writes() {
			return fs.ErrPermission
		}
		return nil
	})
	o := tinyOptions(fsys)
	db := mustOpen(t, "data", o)
	if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	fsys.armed.Store(true)
	o.ReadOnly = true
	db = mustOpen(t, "data", o)
	if v, err := db.Get([]byte("k")); err != nil || string(v) != "v" {
		t.Errorf("%q, %v", v, err)
	}
	mustClose(t, db)
}

// Compactions that could not open what they wrote left it behind, again at every attempt.
func TestFailedCompactionLeavesNoTables(t *testing.T) {
	opens := 0
	fsys := newFailingFS(func(o vfs.Op) error {
		if o.Kind == vfs.OpOpen && strings.HasSuffix(o.Name, tableSuffix) {
			if opens++; opens > 1 { // the first is that of the flush
				return syscall.EMFILE
			}
		}
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", tinyOptions(fsys))
		defer mustClose(t, db)
		for round := range 2 {
			fsys.armed.Store(round == 1)
			for i := range 8 {
				if err := db.Put(fmt.Appendf(nil, "k%d", i), nil, NoSync); err != nil {
					t.Fatal(err)
				}
			}
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		if tables, err := listFiles(fsys, "data", fileTable); err != nil || len(tables) != 2 {
			t.Errorf("tables %v, %v; after %d attempts", tables, err, opens-1)
		}
		if opens < 10 {
			t.Errorf("only %d attempts in a minute", opens-1)
		}
		fsys.armed.Store(false)
		time.Sleep(time.Minute)
		if n := db.Metrics().Levels[0].Tables; n != 0 {
			t.Errorf("%d tables are left in level 0", n)
		}
		if err := db.Check(); err != nil {
			t.Error(err)
		}
	})
}

// Every attempt to start a log on a full disk left a temporary file.
func TestFullDiskLeavesNoTemporaryFiles(t *testing.T) {
	fsys := newFailingFS(func(o vfs.Op) error {
		if o.Kind == vfs.OpWriteAt {
			return syscall.ENOSPC
		}
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", tinyOptions(fsys))
		defer mustClose(t, db)
		before, _ := fsys.List("data")
		fsys.armed.Store(true)
		if err := db.Put([]byte("k"), []byte("v"), Sync); !errors.Is(err, ErrDiskFull) {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if after, _ := fsys.List("data"); len(after) > len(before)+2 {
			t.Errorf("%d files became %d: %v ...", len(before), len(after), after[:len(before)+2])
		}
		fsys.armed.Store(false)
		time.Sleep(10 * time.Second)
		if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
			t.Error(err)
		}
	})
}

// A manifest that could not be written was left behind, again at every attempt.
func TestFullDiskLeavesNoManifests(t *testing.T) {
	fsys := newFailingFS(func(o vfs.Op) error {
		if o.Kind == vfs.OpWriteAt && strings.Contains(o.Name, manifestPrefix) {
			return syscall.ENOSPC
		}
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		db := mustOpen(t, "data", tinyOptions(fsys))
		defer mustClose(t, db)
		if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
			t.Fatal(err)
		}
		before, _ := fsys.List("data")
		fsys.armed.Store(true)
		if err := db.Flush(); !errors.Is(err, ErrDiskFull) {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if after, _ := fsys.List("data"); len(after) > len(before)+4 {
			t.Errorf("%d files became %d: %v ...", len(before), len(after), after[:len(before)+4])
		}
		fsys.armed.Store(false)
		time.Sleep(10 * time.Second)
		if err := db.Put([]byte("k"), []byte("v"), Sync); err != nil {
			t.Error(err)
		}
	})
}

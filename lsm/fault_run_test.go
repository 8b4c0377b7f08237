package lsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kvd/lsm/vfs"
)

// faultStep is one step of the workload.
type faultStep uint8

const (
	stepWrite faultStep = iota
	stepLarge           // more than fits in a memtable beside others
	stepGet
	stepScan
	stepFlush
	stepCompact
	stepManifest // a new one at the next edit
	stepCheckpoint
	stepPin   // an iterator that holds on to the tables of this moment
	stepUnpin // and what it sees
	stepReopen
)

// faultProgram is the workload of a seed: the same steps in another order, with other options.
func faultProgram(r *rand.Rand) []faultStep {
	var steps []faultStep
	add := func(n int, s faultStep) { steps = append(steps, slices.Repeat([]faultStep{s}, n)...) }
	add(16, stepWrite)
	add(1, stepLarge)
	add(2, stepGet)
	add(1, stepScan)
	add(1, stepFlush)
	add(1, stepCompact)
	add(1, stepManifest)
	add(1, stepCheckpoint)
	add(1, stepPin)
	add(1, stepUnpin)
	r.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	steps = slices.Insert(steps, len(steps)/2+r.IntN(5), stepReopen)
	return append(steps, stepFlush)
}

// faultRun is one case.
type faultRun struct {
	t     *testing.T
	c     faultCase
	rand  *rand.Rand // of the workload
	chaos *rand.Rand // of the losses of power
	opts  Options
	mem   *vfs.Mem
	fs    *vfs.Fault

	seen    [opKindCount][faultClasses]atomic.Int32
	fired   atomic.Pointer[vfs.Op]  // the operation that was to fail
	fires   atomic.Int32            // operations that failed
	after   atomic.Int32            // those of laterKind since
	evicted atomic.Bool             // pages of a log that processes had written are gone
	cleared atomic.Bool             // nothing fails any more
	final   atomic.Bool             // frames of a log failed: this instance is to be read only
	headers sync.Map                // names of logs whose header is synced
	observe func(*faultRun, vfs.Op) // what else wants to know of each operation

	db     *DB
	open   []*DB // to be closed if the case fails
	broken bool  // this instance has said that it is read only
	ledger faultLedger
	pin    *Iter
	pinned map[string]string
	copies map[string]map[string]string // checkpoints that were acknowledged: their contents
	step   int
	cuts   int64
}

func newFaultRun(t *testing.T, c faultCase) *faultRun {
	r := &faultRun{
		t:      t,
		c:      c,
		rand:   rand.New(rand.NewPCG(c.seed, 1)),
		chaos:  rand.New(rand.NewPCG(c.seed, uint64(c.point.nth))),
		mem:    vfs.NewMem(),
		copies: make(map[string]map[string]string),
	}
	r.fs = vfs.NewFault(r.mem, r.inject)
	r.opts = tinyOptions(r.fs)
	if r.rand.IntN(2) == 0 {
		r.opts.CacheBytes = -1
	}
	r.opts.MemtableBytes = int64(2+r.rand.IntN(2)) << 10
	if c.capacity > 0 {
		r.mem.SetCapacity(c.capacity)
	}
	return r
}

func (r *faultRun) failf(format string, args ...any) {
	r.t.Helper()
	fired := "nothing"
	if o := r.fired.Load(); o != nil {
		fired = o.String()
	}
	r.t.Fatalf("step %d: %s\nfailed: %s and %d more\nrepeat: go test ./lsm -run "+
		"TestEveryOperationFails -fault.case=%v",
		r.step, fmt.Sprintf(format, args...), fired, max(r.fires.Load()-1, 0), r.c)
}

// inject decides over an operation.
func (r *faultRun) inject(o vfs.Op) error {
	if r.observe != nil {
		r.observe(r, o)
	}
	if r.cleared.Load() {
		return nil
	}
	p := faultPoint{op: o.Kind, class: faultClassOf(o.Name)}
	p.nth = int(r.seen[p.op][p.class].Add(1))
	kind := r.c.kind
	first, frames := r.fired.Load(), r.ofFrames(o)
	switch {
	case first == nil:
		if p != r.c.point {
			return nil
		}
		r.fired.Store(&o)
		r.final.Store(frames && !kind.full() && r.c.later == 0)
	case (r.c.forever || kind == faultDead) && kind.persists(first.Kind, o.Kind):
	case r.c.later > 0 && r.c.laterKind.applies(o.Kind) &&
		int(r.after.Add(1)) == r.c.later:
		kind = r.c.laterKind
	default:
		return nil
	}
	r.fires.Add(1)
	if kind == faultEvicted {
		r.evicted.Store(true)
	}
	return kind.inject(o)
}

// ofFrames reports whether o writes or syncs frames of a log, not the header of one that is being
// made. The handle of a log keeps the name that it was made under.
func (r *faultRun) ofFrames(o vfs.Op) bool {
	if !strings.Contains(o.Name, logSuffix) {
		return false
	}
	if o.Kind == vfs.OpSync {
		_, header := r.headers.LoadOrStore(o.Name, true)
		return header
	}
	return o.Kind == vfs.OpWriteAt && o.Off > 0
}

// runFaultCase runs one case and tells observe, if not nil, of each operation. A bubble of
// testing/synctest makes the waits for room take no time, and reports it when everybody waits for
// ever.
func runFaultCase(t *testing.T, c faultCase, observe func(*faultRun, vfs.Op)) *faultRun {
	watchdog := time.AfterFunc(time.Minute, func() { // in the time of the machine
		buf := make([]byte, 1<<20)
		panic(fmt.Sprintf("fault %v hangs\n%s", c, buf[:runtime.Stack(buf, true)]))
	})
	defer watchdog.Stop()
	r := newFaultRun(t, c)
	r.observe = observe
	synctest.Test(t, func(t *testing.T) {
		r.t = t
		defer func() { // so that a failure is not buried under a deadlock
			r.cleared.Store(true)
			if r.pin != nil {
				_ = r.pin.Close()
			}
			for _, db := range r.open {
				_ = db.Close()
			}
		}()
		r.run()
	})
	return r
}

// run goes through the workload, whatever fails, and then comes to two ends: the power fails, and
// the fault goes away.
func (r *faultRun) run() {
	program := faultProgram(r.rand)
	cutAt := r.chaos.IntN(len(program))
	ok := r.reopen()
	for r.step = 1; ok && r.step <= len(program); r.step++ {
		ok = r.do(program[r.step-1])
		if !ok {
			break
		}
		synctest.Wait() // until the background has nothing to do
		r.state()
		if r.step > cutAt && r.fired.Load() != nil {
			cutAt = len(program)
			r.cut(vfs.KeepNone)
		}
	}
	r.cut(vfs.KeepNone)
	r.cut(vfs.CrashModes[2+r.chaos.IntN(len(vfs.CrashModes)-2)])
	if r.db != nil && r.pin != nil {
		r.unpin()
	}
	r.cleared.Store(true)
	r.mem.SetCapacity(-1)
	if r.db != nil {
		r.resume()
	}
	r.close()
	if !r.reopen() {
		r.failf("does not open without faults")
	}
	r.cut(vfs.KeepNone)
	r.write(100, Sync)
	r.check("compact", r.db.Compact(context.Background(), nil, nil))
	r.compare()
	if err := r.db.Check(); err != nil {
		r.failf("check: %v", err)
	}
	if s := r.db.Metrics().State; s != "healthy" {
		r.failf("state without faults: %s", s)
	}
	if err := r.close(); err != nil {
		r.failf("close without faults: %v", err)
	}
}

// do is one step. It returns false when the database cannot be opened.
func (r *faultRun) do(step faultStep) bool {
	switch step {
	case stepWrite:
		r.write(r.rand.IntN(400), Durability(r.rand.IntN(3)))
	case stepLarge:
		r.write(int(r.opts.MemtableBytes), Sync)
	case stepGet:
		for range 3 {
			r.get(r.ledger.key(r.rand.IntN(faultKeys)))
			if n := len(r.ledger.writes); n > 0 {
				r.get(r.ledger.writes[r.rand.IntN(n)].one)
			}
		}
	case stepScan:
		r.compare()
	case stepFlush:
		if r.check("flush", r.db.Flush()) == nil {
			r.ledger.hold(heldByDisk)
		}
	case stepCompact:
		if r.check("compact", r.db.Compact(context.Background(), nil, nil)) == nil {
			r.ledger.hold(heldByDisk)
		}
	case stepManifest:
		r.db.installing.Lock()
		r.db.manifest.limit = 0
		r.db.installing.Unlock()
	case stepCheckpoint:
		r.checkpoint(fmt.Sprintf("copy%d", r.step))
	case stepPin:
		r.unpin()
		r.pin, r.pinned = r.db.NewIter(IterOptions{}), maps.Clone(r.ledger.live)
	case stepUnpin:
		r.unpin()
	case stepReopen:
		r.unpin()
		_ = r.close()
		return r.reopen()
	}
	return true
}

// check demands that an error is one that callers are promised.
func (r *faultRun) check(doing string, err error) error {
	if bad := r.c.promised(doing, err, r.fired.Load() != nil && !r.cleared.Load()); bad != nil {
		r.failf("%v", bad)
	}
	if errors.Is(err, ErrReadOnly) {
		r.broken = true
	}
	return err
}

// promised returns nil when err is one that callers are promised: while faults are active, what is
// injected may show as it is, but not to writers.
func (c faultCase) promised(doing string, err error, active bool) error {
	kinds := []faultKind{c.kind}
	if c.later > 0 {
		kinds = append(kinds, c.laterKind)
	}
	full, other, injected := c.capacity > 0, false, false
	for _, k := range kinds {
		full = full || k.full()
		other = other || !k.full() && c.capacity == 0
		injected = injected || active && errors.Is(err, k.err())
	}
	var corrupt *CorruptError
	switch {
	case err == nil || errors.Is(err, ErrSuspended) && other:
	case errors.As(err, &corrupt):
		return fmt.Errorf("%s: nothing was damaged: %w", doing, err)
	case errors.Is(err, ErrReadOnly):
		if !other {
			return fmt.Errorf("%s: a full disk is final: %w", doing, err)
		}
	case errors.Is(err, ErrDiskFull):
		if !full {
			return fmt.Errorf("%s: the disk is not full: %w", doing, err)
		}
	case doing == "write":
		return fmt.Errorf("not an error that writers are promised: %w", err)
	case injected, c.capacity > 0 && errors.Is(err, syscall.ENOSPC):
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

func (r *faultRun) write(size int, d Durability) *faultWrite {
	w := r.ledger.next(size, r.rand.IntN(faultKeys), r.rand.IntN(8) == 0)
	before, began := r.db.Metrics().State, time.Now()
	err := r.check("write", r.db.Apply(w.batch(), d))
	r.ledger.outcome(w, d, err)
	if err == nil && before != "healthy" && !r.cleared.Load() && time.Now().Equal(began) {
		r.failf("a write is acknowledged although the state is: %s", before)
	}
	if err == nil && r.broken {
		r.failf("a write is acknowledged after one was refused for good")
	}
	return w
}

// state looks whether the state that the metrics show is the true one.
func (r *faultRun) state() {
	if r.db == nil {
		return
	}
	s := r.db.Metrics().State
	readOnly := strings.HasPrefix(s, ErrReadOnly.Error())
	if r.broken && !readOnly {
		r.failf("writes are refused for good, but the state is: %s", s)
	}
	if r.final.Load() && !readOnly {
		r.failf("a write or sync of the log has failed, but the state is: %s", s)
	}
	if readOnly && r.fired.Load() == nil {
		r.failf("nothing has failed, but the state is: %s", s)
	}
	r.broken = readOnly
}

// readsFail reports whether a read may fail.
func (r *faultRun) readsFail() bool {
	o := r.fired.Load()
	if o == nil || r.cleared.Load() {
		return false
	}
	return !o.Kind.Writes() || r.c.kind == faultDead ||
		r.c.later > 0 && r.c.laterKind.applies(vfs.OpReadAt)
}

// read demands of an error of a read that it is the disk's.
func (r *faultRun) read(doing string, err error) bool {
	if err != nil && (!errors.Is(err, syscall.EIO) || !r.readsFail()) {
		r.failf("%s: %v", doing, err)
	}
	return err == nil
}

func (r *faultRun) get(key string) {
	value, err := r.db.Get([]byte(key))
	want := r.ledger.live[key]
	if errors.Is(err, ErrNotFound) && want == "" {
		return
	}
	if r.read("get", err) && string(value) != want {
		r.failf("%s is %.12q, want %.12q", key, value, want)
	}
}

// compare reads everything.
func (r *faultRun) compare() {
	contents, err := faultContents(r.db)
	if r.read("scan", err) {
		if err := r.ledger.check(contents, whileOpen); err != nil {
			r.failf("%v", err)
		}
		if !maps.Equal(contents, r.ledger.live) {
			r.failf("%d keys, want %d, or other values", len(contents), len(r.ledger.live))
		}
	}
	for i := range faultKeys {
		r.get(r.ledger.key(i))
	}
	for i := 0; i < len(r.ledger.writes); i += 7 {
		r.get(r.ledger.writes[i].one)
	}
}

// unpin sees whether the iterator has seen what was there when it was made.
func (r *faultRun) unpin() {
	it := r.pin
	if it == nil {
		return
	}
	r.pin = nil
	seen := make(map[string]string)
	for key, value := range it.All() {
		seen[string(key)] = string(value)
	}
	if r.read("an old iterator", it.Close()) && !maps.Equal(seen, r.pinned) {
		r.failf("an old iterator sees %d keys, %d were there", len(seen), len(r.pinned))
	}
}

// checkpoint makes a copy and, when it says that there is one, sees that it is whole.
func (r *faultRun) checkpoint(dir string) {
	if r.check("checkpoint", r.db.Checkpoint(dir)) != nil {
		return
	}
	r.ledger.hold(heldByDisk)
	r.copies[dir] = maps.Clone(r.ledger.live)
	r.openCopy(r.mem, dir)
}

func (r *faultRun) openCopy(mem *vfs.Mem, dir string) {
	o := r.opts
	o.FS, o.ReadOnly = mem, true
	contents := r.look(dir, o, nil)
	if !maps.Equal(contents, r.copies[dir]) {
		r.failf("%s has %d keys, want %d, or other values", dir, len(contents), len(r.copies[dir]))
	}
}

// look opens a database, reads everything and closes it.
func (r *faultRun) look(dir string, o Options, more func(*DB)) map[string]string {
	db, err := Open(dir, o)
	if err != nil {
		r.failf("open %s: %v", dir, err)
	}
	r.open = append(r.open, db)
	contents, err := faultContents(db)
	if err != nil {
		r.failf("read %s: %v", dir, err)
	}
	if more != nil {
		more(db)
	}
	if err := db.Close(); err != nil {
		r.failf("close %s: %v", dir, err)
	}
	r.open = r.open[:len(r.open)-1]
	return contents
}

// cut is a loss of power at this moment: what was acknowledged as durable must be on the disk.
func (r *faultRun) cut(mode vfs.CrashMode) {
	r.cuts++
	disk := r.mem.Crash(r.chaos, mode)
	disk.SetCapacity(-1)
	o := r.opts
	o.FS = disk
	contents := r.look("data", o, func(db *DB) {
		if mode != vfs.KeepNone {
			return
		}
		if err := db.Check(); err != nil {
			r.failf("%v: check: %v", mode, err)
		}
	})
	if err := r.ledger.check(contents, afterPower); err != nil {
		r.failf("%v: %v", mode, err)
	}
	for dir := range r.copies {
		r.openCopy(disk, dir)
	}
}

// reopen opens the database, a second time if the first was unlucky, and sees what is there.
func (r *faultRun) reopen() bool {
	for range 3 {
		o := r.opts
		db, err := Open("data", o)
		if err == nil {
			r.db, r.broken = db, false
			r.final.Store(false)
			r.open = append(r.open, db)
			r.settle()
			return true
		}
		r.check("open", err)
		if n := r.mem.OpenFiles(); n != 0 {
			r.failf("%d files are open after Open failed: %v", n, err)
		}
	}
	if r.cleared.Load() || r.c.capacity == 0 && !r.c.forever && r.c.kind != faultDead {
		r.failf("Open fails three times")
	}
	return false
}

// settle sees what a reopening has brought back. What is there then is in tables. Reads that fail
// are tried again when the fault is gone.
func (r *faultRun) settle() {
	at := afterOpening
	if r.evicted.Load() {
		at = afterEvicted
	}
	contents, err := faultContents(r.db)
	if !r.read("scan", err) {
		was := r.cleared.Swap(true) // only to see what is there
		contents, err = faultContents(r.db)
		r.cleared.Store(was)
		if err != nil {
			r.failf("scan: %v", err)
		}
	}
	if err := r.ledger.check(contents, at); err != nil {
		r.failf("%v", err)
	}
	r.ledger.settle(contents)
}

// close closes the database.
func (r *faultRun) close() error {
	if r.db == nil {
		return nil
	}
	err := r.check("close", r.db.Close())
	if err == nil {
		r.ledger.hold(heldByDisk)
	}
	r.db, r.open = nil, r.open[:0]
	if n := r.mem.OpenFiles(); n != 0 {
		r.failf("%d files are open after Close: %v", n, err)
	}
	return err
}

// resume waits for writes to resume by themselves, now that nothing fails any more, unless they
// are refused for good.
func (r *faultRun) resume() {
	if r.state(); r.broken {
		if w := r.write(10, Sync); w.fate != fateRefused {
			r.failf("%v after the state was read only", w)
		}
		r.compare() // reads go on
		return
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if w := r.write(10, Sync); w.fate == fateAcked {
			return
		}
		if r.broken || time.Since(began) > 5*time.Second {
			r.failf("writes do not resume: %s", r.db.Metrics().State)
		}
	}
}

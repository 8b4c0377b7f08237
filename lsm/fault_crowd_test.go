package lsm

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"kvd/lsm/vfs"
)

var faultCrowdSeed = flag.Uint64("fault.crowd", 0, "run this seed of TestFaultsInACrowd only")

// TestFaultsInACrowd is TestEveryOperationFails with several writers, a reader and somebody who
// flushes, compacts and makes checkpoints, all at once. Some operation fails, and perhaps a second
// one. What each writer knows of its own writes is compared as there.
func TestFaultsInACrowd(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	if *faultCrowdSeed != 0 {
		for range 20 { // who comes first is not of the seed
			newFaultCrowd(*faultCrowdSeed).test(t)
		}
		return
	}
	var cases, recoveries int64
	began := time.Now()
	for seed := uint64(1); !t.Failed() &&
		(seed <= faultCrowds || time.Since(began) < *budget); seed++ {
		c := newFaultCrowd(seed)
		c.test(t)
		recoveries += 4
		if c.fired.Load() != nil {
			cases++
		}
	}
	count(t, "fault cases", cases)
	count(t, "recoveries", recoveries)
}

const faultWriters = 3

// faultCrowd is one run.
type faultCrowd struct {
	t    *testing.T
	seed uint64
	rand *rand.Rand
	c    faultCase // its kinds; the point is at
	at   uint64    // operations after the first Open
	opts Options
	mem  *vfs.Mem

	ops      atomic.Uint64
	armed    atomic.Bool
	fired    atomic.Pointer[vfs.Op]
	after    atomic.Int32
	evicted  atomic.Bool
	readOnly atomic.Bool // somebody was told so

	db      *DB
	ledgers [faultWriters]faultLedger
}

func newFaultCrowd(seed uint64) *faultCrowd {
	r := rand.New(rand.NewPCG(seed, 5))
	c := &faultCrowd{seed: seed, rand: r, at: 1 + r.Uint64N(500), mem: vfs.NewMem()}
	c.c.kind, c.c.forever = faultKind(r.IntN(int(faultKinds))), r.IntN(2) == 0
	if r.IntN(3) == 0 {
		c.c.later, c.c.laterKind = 1+r.IntN(50), faultKind(r.IntN(int(faultKinds)-1))
	}
	if c.c.laterKind == faultDead {
		c.c.laterKind = faultFull
	}
	c.opts = tinyOptions(vfs.NewFault(c.mem, c.inject))
	for i := range c.ledgers {
		c.ledgers[i] = faultLedger{writer: i, live: make(map[string]string)}
	}
	return c
}

func (c *faultCrowd) inject(o vfs.Op) error {
	if !c.armed.Load() {
		return nil
	}
	n, kind := c.ops.Add(1), c.c.kind
	first := c.fired.Load()
	switch {
	case first == nil:
		// The first from there on that can fail so.
		if n < c.at || !kind.applies(o.Kind) || !c.fired.CompareAndSwap(nil, &o) {
			return nil
		}
	case (c.c.forever || kind == faultDead) && kind.persists(first.Kind, o.Kind):
	case c.c.later > 0 && c.c.laterKind.applies(o.Kind) && int(c.after.Add(1)) == c.c.later:
		kind = c.c.laterKind
	default:
		return nil
	}
	if kind == faultEvicted {
		c.evicted.Store(true)
	}
	return kind.inject(o)
}

func (c *faultCrowd) errorf(format string, args ...any) {
	c.t.Helper()
	c.t.Errorf("%s\nfailed: %v\nrepeat: go test ./lsm -run TestFaultsInACrowd -fault.crowd=%d",
		fmt.Sprintf(format, args...), c.fired.Load(), c.seed)
}

func (c *faultCrowd) check(doing string, err error) {
	c.t.Helper()
	if errors.Is(err, ErrReadOnly) {
		c.readOnly.Store(true)
	}
	if bad := c.c.promised(doing, err, c.fired.Load() != nil && c.armed.Load()); bad != nil {
		c.errorf("%v", bad)
	}
}

func (c *faultCrowd) test(t *testing.T) {
	watchdog := time.AfterFunc(time.Minute, func() { // in the time of the machine
		panic(fmt.Sprintf("seed %d of TestFaultsInACrowd hangs", c.seed))
	})
	defer watchdog.Stop()
	synctest.Test(t, func(t *testing.T) {
		c.t = t
		c.db = mustOpen(t, "data", c.opts)
		c.armed.Store(true)
		c.meet()
		synctest.Wait()
		c.look("KeepNone", c.mem.Crash(nil, vfs.KeepNone))
		c.look("Random", c.mem.Crash(c.rand, vfs.Random))
		c.armed.Store(false)
		c.resume()
		err := c.db.Close()
		c.check("close", err)
		if n := c.mem.OpenFiles(); n != 0 {
			c.errorf("%d files are open after Close: %v", n, err)
		}
		at := afterOpening
		if c.evicted.Load() {
			at = afterEvicted
		}
		for i := range c.ledgers {
			if err == nil {
				c.ledgers[i].hold(heldByDisk)
			}
		}
		c.reopen(at)
		if !t.Failed() {
			c.look("reopened, KeepNone", c.mem.Crash(nil, vfs.KeepNone))
		}
	})
}

// meet has everybody at work at the same time.
func (c *faultCrowd) meet() {
	var wg sync.WaitGroup
	for i := range c.ledgers {
		r := rand.New(rand.NewPCG(c.seed, uint64(10+i)))
		wg.Go(func() { c.write(&c.ledgers[i], r) })
	}
	wg.Go(c.readAll)
	wg.Go(func() {
		for i := range 3 {
			c.check("flush", c.db.Flush())
			c.check("compact", c.db.Compact(context.Background(), nil, nil))
			c.check("checkpoint", c.db.Checkpoint(fmt.Sprintf("copy%d", i)))
			time.Sleep(time.Millisecond)
		}
	})
	wg.Wait()
}

// write is a writer: it reads what it has written.
func (c *faultCrowd) write(l *faultLedger, r *rand.Rand) {
	for range 25 {
		w := l.next(r.IntN(300), r.IntN(faultKeys), r.IntN(8) == 0)
		d := Durability(r.IntN(3))
		readOnly := c.readOnly.Load()
		err := c.db.Apply(w.batch(), d)
		c.check("write", err)
		if err == nil && readOnly {
			c.errorf("%v: acknowledged after somebody was told that no more are", w)
		}
		l.outcome(w, d, err)
		if w.fate != fateRefused {
			c.get(w.one, w.value)
		}
		if r.IntN(12) == 0 {
			err := c.db.Flush()
			c.check("flush", err)
			if err == nil {
				l.hold(heldByDisk)
			}
		}
		if r.IntN(4) == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

func (c *faultCrowd) get(key, want string) {
	value, err := c.db.Get([]byte(key))
	if c.mayFail(err) || err == nil && string(value) == want {
		return
	}
	c.errorf("%s is %.12q, %v; want %.12q", key, value, err, want)
}

// mayFail reports whether a read may end with that error.
func (c *faultCrowd) mayFail(err error) bool {
	o := c.fired.Load()
	return errors.Is(err, syscall.EIO) && c.armed.Load() && o != nil && (!o.Kind.Writes() ||
		c.c.kind == faultDead || c.c.later > 0 && c.c.laterKind.applies(vfs.OpReadAt))
}

// readAll is the reader: batches are whole.
func (c *faultCrowd) readAll() {
	for range 15 {
		contents, err := faultContents(c.db)
		if err != nil && !c.mayFail(err) {
			c.errorf("scan: %v", err)
			return
		}
		for key, value := range contents {
			if unique, ok := strings.CutSuffix(key, "-0"); ok && contents[unique+"-1"] != value {
				c.errorf("half of a batch: %s", key)
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// resume waits for writes to resume, unless they are refused for good.
func (c *faultCrowd) resume() {
	l := &c.ledgers[0]
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		final := strings.HasPrefix(c.db.Metrics().State, ErrReadOnly.Error())
		w := l.next(10, 0, false)
		err := c.db.Apply(w.batch(), Sync)
		c.check("write", err)
		l.outcome(w, Sync, err)
		switch {
		case final && err == nil:
			c.errorf("%v although the state was read only", w)
			return
		case final || err == nil:
			return
		case time.Since(began) > 5*time.Second:
			c.errorf("writes do not resume: %v", err)
			return
		}
	}
}

func (c *faultCrowd) reopen(at faultMoment) {
	contents := c.open(at.name, c.mem)
	for i := range c.ledgers {
		if err := c.ledgers[i].check(contents, at); err != nil {
			c.errorf("%v", err)
		}
		c.ledgers[i].settle(contents)
	}
}

// look sees what a loss of power has left.
func (c *faultCrowd) look(mode string, disk *vfs.Mem) {
	contents := c.open(mode, disk)
	for i := range c.ledgers {
		if err := c.ledgers[i].check(contents, afterPower); err != nil {
			c.errorf("%s: %v", mode, err)
		}
	}
}

// open opens the database of a disk without faults, reads everything and closes it.
func (c *faultCrowd) open(name string, disk *vfs.Mem) map[string]string {
	o := c.opts
	o.FS = disk
	db, err := Open("data", o)
	if err != nil {
		c.errorf("%s: open: %v", name, err)
		return nil
	}
	contents, err := faultContents(db)
	if err := errors.Join(err, db.Check(), db.Close()); err != nil {
		c.errorf("%s: %v", name, err)
	}
	if n := disk.OpenFiles(); n != 0 && disk != c.mem {
		c.errorf("%s: %d files are open", name, n)
	}
	return contents
}

package lsm

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kvd/compaction"
	"kvd/lsm/vfs"
	"kvd/sstable"
)

var (
	crashSeedFlag = flag.Uint64("crash.seed", 0, "run this seed of the crash tests only")
	crashSteps    = flag.Int("crash.steps", 0, "steps of each life of a crash test; 0 is the default")
	crashImageDir = flag.String("crash.image", "", "examine an image that a crash test has kept")
)

const (
	crashDir = "data"
	// crashPending is how many moments may wait to be examined: the images of each take some 200 KiB.
	crashPending = 64
)

// TestCrashAtEveryOperation works with a database in all the ways there are, and before every
// operation on the file system takes the images that a loss of power would leave there and then, in
// every way of crashWays. Each is recovered: it must hold what was there after some prefix of the
// commits, and in that all that was promised to survive, and nothing that had not begun; a
// checkpoint is there or not, whole; Verify finds no damage, Check nothing wrong, no file is left
// over; a new write wins; opening it again finds the same.
//
// Background work makes runs of one seed differ, so an image that fails is kept.
func TestCrashAtEveryOperation(t *testing.T) {
	if *crashImageDir != "" {
		examineKept(t, *crashImageDir)
		return
	}
	crashSearch(t, "TestCrashAtEveryOperation", crashShort{seeds: crashSeeds, lives: crashLives, steps: 9},
		func(uint64, int) int { return 0 })
}

// TestCrashDuringRecovery is the same, and while the images are recovered and used, the power fails
// again before every operation, in two ways out of all in turn, and once in a while a third time.
func TestCrashDuringRecovery(t *testing.T) {
	share := uint64(1)
	if *budget == 0 {
		share = 12 // of the images, one
	}
	crashSearch(t, "TestCrashDuringRecovery", crashShort{seeds: crashSeeds, lives: crashLives, steps: 5},
		func(hash uint64, depth int) int {
			switch {
			case depth == 0 && hash>>32%share == 0:
				return 2
			case depth == 1 && hash>>32%97 == 0:
				return 1
			}
			return 0
		})
}

// crashShort is the everyday amount of work.
type crashShort struct{ seeds, lives, steps int }

func crashSearch(t *testing.T, name string, short crashShort, compound func(uint64, int) int) {
	// The heap is small and the garbage much; where it is not small, the machine has other uses.
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(1 << 30))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4)) // merges are split in more than two
	var total crashExam
	var ops int64
	began, used := time.Now(), processorTime()
	steps := short.steps
	if *crashSteps != 0 {
		steps = *crashSteps
	}
	for i := 0; i < short.seeds || time.Since(began) < *budget; i++ {
		seed := uint64(i + 1)
		switch {
		case *crashSeedFlag != 0:
			seed = *crashSeedFlag
		case *budget != 0:
			seed = rand.Uint64N(1<<32) + 1
		}
		r := newCrashRun(seed, compound)
		r.exam.over = func() bool { return *budget != 0 && time.Since(began) > *budget }
		err := r.run(short.lives, steps)
		if err != nil {
			t.Fatalf("seed %d: %v\nafter: %s\nrepeat: go test ./lsm -run %s -crash.seed=%d "+
				"-crash.steps=%d", seed, err, strings.Join(r.exam.trace, " "), name, seed, steps)
		}
		total.recoveries.Add(r.exam.recoveries.Load())
		total.points.Add(r.exam.points.Load())
		total.reopens.Add(r.exam.reopens.Load())
		total.cells.Add(r.exam.cells.Load())
		total.same.Add(r.exam.same.Load())
		ops += r.ops
		if *crashSeedFlag != 0 {
			break
		}
	}
	t.Logf("%d operations and ways, %d operations of them changed nothing on the disk; %d reopenings"+
		"; %v of a processor for each recovery, all told", total.cells.Load(), total.same.Load(),
		total.reopens.Load(), (processorTime()-used)/time.Duration(max(1, total.recoveries.Load())))
	count(t, "operations", ops)
	count(t, "crash points", total.points.Load())
	count(t, "recoveries", total.recoveries.Load())
}

// processorTime is how long this process has run, on all processors.
func processorTime() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used) // fails for no valid argument
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// crashRun is one seed: the life of a database up to a crash, and on from there, a few times.
type crashRun struct {
	seed uint64
	r    *rand.Rand
	exam *crashExam
	ops  int64

	mem     *vfs.Mem
	h       *crashHistory
	capture *crashCapture
	db      *DB
	log     *crashLog
	snaps   []*Snapshot
	last    []*crashPoint // examined last
	copies  int
}

func newCrashRun(seed uint64, compound func(uint64, int) int) *crashRun {
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(values ...int64) int64 { return values[r.IntN(len(values))] }
	o := crashOptions{
		MemtableBytes:    pick(1<<10, 2<<10, 4<<10, 8<<10),
		CacheBytes:       pick(-1, 1, 4<<10, 64<<10),
		BlockBytes:       int(pick(1, 64, 256, 4096)),
		FilterBitsPerKey: int(pick(-1, 1, 10)),
		Compaction: compaction.Config{
			BaseBytes:        uint64(pick(1<<10, 4<<10)),
			TableBytes:       uint64(pick(64, 512, 1<<10, 4<<10)),
			Multiplier:       int(pick(2, 4)),
			LevelZeroTrigger: int(pick(1, 2, 4)),
		},
	}
	return &crashRun{
		seed: seed, r: r, mem: vfs.NewMem(),
		h:    &crashHistory{copies: map[string]sstable.Seq{}},
		exam: &crashExam{opts: o, compound: compound},
	}
}

// run lives several lives. All but the last end with a crash.
func (r *crashRun) run(lives, steps int) error {
	for life := range lives {
		r.capture = (&crashCapture{
			seed: r.seed<<20 + uint64(life)<<16, mem: r.mem, h: r.h,
			ways: func(uint64) []crashWay { return crashWays },
		}).start()
		err := r.life(steps, life == lives-1)
		if err == nil {
			err = r.examine()
		}
		r.capture.stop()
		r.ops += r.capture.ops
		r.exam.cells.Add(r.capture.cells)
		r.exam.same.Add(r.capture.same)
		if r.db != nil {
			r.dropSnaps()
			err = errors.Join(err, r.db.Close())
			r.db = nil
		}
		if r.exam.over() {
			return err
		}
		if err == nil && life < lives-1 {
			err = r.crash()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// life is what is done between two crashes.
func (r *crashRun) life(steps int, closes bool) error {
	r.did("open")
	if err := r.open(); err != nil {
		return err
	}
	for range steps {
		if r.exam.over() {
			break
		}
		if err := r.step(); err != nil {
			return fmt.Errorf("%s: %w", r.exam.trace[len(r.exam.trace)-1], err)
		}
		if r.capture.pending() >= crashPending {
			if err := r.examine(); err != nil {
				return err
			}
		}
	}
	if closes {
		r.did("close")
		if err := r.close(); err != nil {
			return err
		}
	}
	r.capture.take(vfs.Op{Kind: vfs.OpUnlock, Name: "the end"})
	return nil
}

func (r *crashRun) did(what string) { r.exam.trace = append(r.exam.trace, what) }

func (r *crashRun) open() (err error) {
	r.db, r.log, err = r.exam.opts.open(crashDir, r.capture.fs, false)
	if err != nil {
		return err
	}
	if seq := r.db.published.seq(); seq != r.h.last() {
		return fmt.Errorf("opened with sequence number %d after %d", seq, r.h.last())
	}
	return contents(r.db, r.h.state(len(r.h.commits)))
}

func (r *crashRun) close() error {
	r.dropSnaps()
	db := r.db
	r.db = nil
	if err := errors.Join(db.Close(), r.log.err()); err != nil {
		return err
	}
	return r.h.allDurable()
}

func (r *crashRun) dropSnaps() {
	for _, s := range r.snaps {
		_ = s.Close()
	}
	r.snaps = nil
}

// step does one thing.
func (r *crashRun) step() error {
	switch n := r.r.IntN(100); {
	case n < 45:
		d := Durability(r.r.IntN(3))
		ops := r.writes(r.r)
		r.did(fmt.Sprintf("write%d/%d", len(ops), d))
		if err := r.h.commit(r.db, ops, d); err != nil {
			return err
		}
		return r.h.settle()
	case n < 52:
		r.did("writers")
		return r.writers()
	case n < 62:
		r.did("fill")
		return r.fill()
	case n < 69:
		r.did("flush")
		if err := r.db.Flush(); err != nil {
			return err
		}
		return r.h.allDurable()
	case n < 74:
		r.did("compact")
		return r.compact()
	case n < 80:
		return r.checkpoint()
	case n < 86:
		r.did("manifest")
		r.db.installing.Lock()
		r.db.manifest.limit = 0 // a new one at the next edit
		r.db.installing.Unlock()
	case n < 91:
		r.did("reopen")
		if err := r.close(); err != nil {
			return err
		}
		return r.open()
	case n < 95:
		r.did("snapshot")
		r.snaps = append(r.snaps, r.db.NewSnapshot())
	case n < 97:
		r.did("drop")
		r.dropSnaps()
	default:
		r.did("compare")
		return errors.Join(contents(r.db, r.h.state(len(r.h.commits))), r.db.Check(),
			r.log.err())
	}
	return nil
}

// writes makes up a commit: mostly of one write, sometimes of many.
func (r *crashRun) writes(from *rand.Rand) []crashOp {
	n := 1
	if from.IntN(4) == 0 {
		n = 2 + from.IntN(12)
	}
	var ops []crashOp
	for i := range n {
		op := crashOp{Key: from.IntN(len(crashKeys)), Value: absent}
		if from.IntN(4) != 0 {
			size := []int{0, 1, 10, 100, 300, 1500}[from.IntN(6)]
			op.Value = ""
			if size > 0 { // no two are the same
				op.Value = fmt.Sprintf("%x.%d ", from.Uint64(), i)
			}
			op.Value += strings.Repeat(string(rune('a'+from.IntN(26))), size)
		}
		ops = append(ops, op)
	}
	return ops
}

// writers has several goroutines write side by side.
func (r *crashRun) writers() error {
	errs := make([]error, 2+r.r.IntN(3))
	var group sync.WaitGroup
	for i := range errs {
		seed := r.r.Uint64()
		group.Go(func() {
			from := rand.New(rand.NewPCG(seed, uint64(i)))
			for range 1 + from.IntN(5) {
				err := r.h.commit(r.db, r.writes(from), Durability(from.IntN(3)))
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	group.Wait()
	return errors.Join(append(errs, r.h.settle())...)
}

// fill writes without waiting until the memtable is full and the log goes on in another segment.
func (r *crashRun) fill() error {
	segment := r.segment()
	for range 64 {
		if err := r.h.commit(r.db, r.writes(r.r), NoSync); err != nil {
			return err
		}
		if r.segment() != segment {
			break
		}
	}
	return r.h.settle()
}

func (r *crashRun) segment() uint64 {
	r.db.commit.Lock()
	defer r.db.commit.Unlock()
	return r.db.commit.mem.segment
}

func (r *crashRun) compact() error {
	var lo, hi []byte
	if r.r.IntN(2) == 0 {
		a, b := r.r.IntN(len(crashKeys)), r.r.IntN(len(crashKeys))
		lo, hi = []byte(crashKeys[min(a, b)]), []byte(crashKeys[max(a, b)])
	}
	if err := r.db.Compact(context.Background(), lo, hi); err != nil {
		return err
	}
	return r.h.allDurable()
}

// checkpoint makes a checkpoint, or removes the one there is.
func (r *crashRun) checkpoint() error {
	if c := r.h.copy.Load(); c != nil {
		r.did("remove-checkpoint")
		r.h.copy.Store(nil)
		return r.removeCopy(c.Dir)
	}
	r.copies++
	c := &crashCopy{Dir: fmt.Sprintf("copy%d", r.copies), Seq: r.h.last()}
	r.did("checkpoint")
	// The map is read by those who examine images, and nobody does now.
	r.h.copies = maps.Clone(r.h.copies)
	r.h.copies[c.Dir] = c.Seq
	r.h.copy.Store(c)
	if err := r.db.Checkpoint(c.Dir); err != nil {
		return err
	}
	c.done.Store(true)
	return r.h.allDurable()
}

// removeCopy removes a checkpoint, CURRENT first: without it there is none.
func (r *crashRun) removeCopy(dir string) error {
	err := r.capture.fs.Remove(dir + "/" + currentName)
	if err == nil {
		err = r.capture.fs.SyncDir(dir)
	}
	names, listErr := r.capture.fs.List(dir)
	err = errors.Join(err, listErr)
	for _, base := range names {
		err = errors.Join(err, r.capture.fs.Remove(dir+"/"+base))
	}
	return errors.Join(err, r.capture.fs.Remove(dir))
}

// examine has all images so far examined. The database stands still meanwhile, but for its
// background work, whose images are for the next time.
func (r *crashRun) examine() error {
	points := make(chan *crashPoint)
	var workers sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for p := range points {
				if err := r.watched(p); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	all := r.capture.drain()
	for _, p := range all {
		points <- p
		mu.Lock()
		stop := failed != nil
		mu.Unlock()
		if stop || r.exam.over() {
			break
		}
	}
	close(points)
	workers.Wait()
	if len(all) > 0 {
		r.last = all
	}
	return failed
}

// watched examines a point, and keeps an image of it when that does not end.
func (r *crashRun) watched(p *crashPoint) error {
	watchdog := time.AfterFunc(3*time.Minute, func() {
		record := r.exam.record(r.h, p, &p.images[0], errors.New("hangs"))
		dir, _ := record.save(p.images[0].disk)
		buf := make([]byte, 1<<20)
		panic(fmt.Sprintf("%v hangs, kept in %s\n%s", p, dir, buf[:runtime.Stack(buf, true)]))
	})
	defer watchdog.Stop()
	return r.exam.point(r.h, p, 0)
}

// crash goes on with one of the images examined last.
func (r *crashRun) crash() error {
	p := r.last[r.r.IntN(len(r.last))]
	image := &p.images[r.r.IntN(len(p.images))]
	r.did(fmt.Sprintf("crash/%v", image.way))
	known, _ := r.exam.results.Load(image.hash)
	got := known.(*crashResult)
	n, _ := r.h.prefix(got.seq)
	before := r.h
	r.h = new(crashHistory)
	r.h.begin(before, n)
	if len(got.copies) > 0 {
		c := &crashCopy{Dir: got.copies[0], Seq: r.h.copies[got.copies[0]]}
		c.done.Store(true)
		r.h.copy.Store(c)
	}
	r.mem = image.disk
	return nil
}

// examineKept examines an image that was kept when a test failed.
func examineKept(t *testing.T, dir string) {
	var record crashRecord
	disk, err := record.load(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("it failed with: %s\nat %s, %s", record.Failure, record.Point, record.Way)
	h := &crashHistory{fresh: record.Commits, copies: record.Copies}
	if err := h.settle(); err != nil {
		t.Fatal(err)
	}
	image := crashImage{disk: disk}
	if record.KeepAll {
		image.way.mode = vfs.KeepAll
	} else {
		image.way.mode = vfs.KeepNone
	}
	p := &crashPoint{at: "kept: ", demand: record.Demand, images: []crashImage{image}}
	exam := &crashExam{opts: record.Options, compound: func(_ uint64, depth int) int {
		return max(0, 2-depth)
	}, over: func() bool { return false }}
	if err := exam.image(h, p, &p.images[0], 0); err != nil {
		t.Fatal(err)
	}
}

package lsm

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kvd/lsm/vfs"
)

var (
	faultSeed = flag.Uint64("fault.seed", 1, "seed of the first workload of the fault test")
	faultShow = flag.String("fault.case", "", "run this case only, as a failure prints it")
)

// TestEveryOperationFails runs a workload through every part of the engine and has each single
// operation on the file system fail, in every way that it can, once and for ever: the matrix. The
// case goes on to the end of the workload, and then in two ways: the power fails at that moment,
// and the fault goes away. Demanded is, whatever fails:
//
//   - every call returns, with nil or an error that callers are promised, never a CorruptError;
//   - reads go on, unless it is reads that fail, and see what is there: a failed one is an error,
//     never ErrNotFound;
//   - a write that was acknowledged is there, in the instance, after reopening and after a loss of
//     power as far as its durability says; one that was refused is not; one in doubt is there whole
//     or not at all, and not without those before it;
//   - after a write that was refused for good none is acknowledged; anything else ends by itself
//     when the fault does; Metrics says which it is;
//   - after reopening Check finds nothing, and no file, lock or goroutine is left behind.
//
// On top of that come disks that fill up at each of the writes, and a sample of double faults.
//
// The short form runs the whole matrix of one workload, a share of it under the race detector; with
// a budget those of other seeds follow.
func TestEveryOperationFails(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	if *faultShow != "" {
		c, err := parseFaultCase(*faultShow)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 { // the order of what runs side by side is not of the case
			runFaultCase(t, c, nil)
		}
		return
	}
	var sum faultSum
	began := time.Now()
	for seed := *faultSeed; !t.Failed() && (seed == *faultSeed || time.Since(began) < *budget); seed++ {
		cells := faultSampleOf(faultMatrixOf(t, seed, &sum), seed)
		deadline := began.Add(*budget)
		if seed == *faultSeed {
			deadline = time.Time{} // the whole of it
		}
		runFaultCells(t, cells, deadline, &sum)
	}
	count(t, "fault points", sum.points)
	count(t, "fault cases", sum.cases.Load())
	count(t, "recoveries", sum.recoveries.Load())
	t.Logf("%d of the %d cells of the matrix, %d disks that fill up, %d double faults; %d not met",
		sum.single.Load(), sum.cells, sum.full.Load(),
		sum.cases.Load()-sum.single.Load()-sum.full.Load(), sum.missed.Load())
}

// faultSum is what was done.
type faultSum struct {
	points, cells       int64        // of the matrices
	cases, single, full atomic.Int64 // run: all, of a matrix, of a disk that fills up
	recoveries          atomic.Int64
	missed              atomic.Int64 // whose operation did not come in any attempt
}

// faultMatrixOf returns every cell of the matrix of a workload, then the disks that fill up at each
// operation, then double faults.
func faultMatrixOf(t *testing.T, seed uint64, sum *faultSum) []faultCase {
	var mu sync.Mutex
	used := make(map[int64]bool) // bytes on the disk before each write
	clean := runFaultCase(t, faultCase{seed: seed}, func(r *faultRun, o vfs.Op) {
		if o.Kind == vfs.OpWriteAt {
			mu.Lock()
			used[r.mem.UsedBytes()] = true
			mu.Unlock()
		}
	})
	var cells []faultCase
	for op := range vfs.OpKind(opKindCount) {
		for class := range faultClasses {
			for nth := 1; nth <= int(clean.seen[op][class].Load()); nth++ {
				sum.points++
				cells = append(cells, faultCellsOf(seed, faultPoint{op, class, nth})...)
			}
		}
	}
	sum.cells += int64(len(cells))
	r := rand.New(rand.NewPCG(seed, 2))
	single := cells
	for _, bytes := range slices.Sorted(maps.Keys(used)) {
		for _, more := range []int64{0, 1 + r.Int64N(512)} {
			cells = append(cells, faultCase{seed: seed, capacity: max(bytes+more, 1)})
		}
	}
	for range len(single) / 16 {
		c := single[r.IntN(len(single))]
		c.later, c.laterKind = 1+r.IntN(40), faultKind(r.IntN(int(faultKinds)))
		if c.laterKind != faultDead {
			cells = append(cells, c)
		}
	}
	return cells
}

// faultCellsOf returns the ways in which an operation can fail.
func faultCellsOf(seed uint64, p faultPoint) (cells []faultCase) {
	for kind := range faultKinds {
		if !kind.applies(p.op) {
			continue
		}
		c := faultCase{seed: seed, point: p, kind: kind}
		cells = append(cells, c)
		if c.forever = true; kind != faultDead { // which always is
			cells = append(cells, c)
		}
	}
	return cells
}

// faultSampleOf returns a share of the cells.
func faultSampleOf(cells []faultCase, seed uint64) []faultCase {
	if faultShare == 1 || *budget > 0 {
		return cells
	}
	r := rand.New(rand.NewPCG(seed, 3))
	return slices.DeleteFunc(cells, func(faultCase) bool { return r.Float64() >= faultShare })
}

// runFaultCells runs cells side by side, until the deadline if there is one.
func runFaultCells(t *testing.T, cells []faultCase, deadline time.Time, sum *faultSum) {
	const lanes = 4
	var next atomic.Int64
	t.Run("cells", func(t *testing.T) {
		for lane := range lanes {
			t.Run(fmt.Sprint(lane), func(t *testing.T) {
				t.Parallel()
				for !t.Failed() && (deadline.IsZero() || time.Now().Before(deadline)) {
					i := int(next.Add(1)) - 1
					if i >= len(cells) {
						return
					}
					runFaultCell(t, cells[i], sum)
				}
			})
		}
	})
}

// runFaultCell runs a case until its operation comes: the order of what runs side by side decides, now
// and then, how many there are of a kind.
func runFaultCell(t *testing.T, c faultCase, sum *faultSum) {
	for range 10 {
		r := runFaultCase(t, c, nil)
		sum.recoveries.Add(r.cuts + 1)
		if r.fired.Load() == nil && c.capacity == 0 {
			continue
		}
		sum.cases.Add(1)
		switch {
		case c.capacity > 0:
			sum.full.Add(1)
		case c.later == 0:
			sum.single.Add(1)
		}
		return
	}
	sum.missed.Add(1)
}

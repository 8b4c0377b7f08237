package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// errorsInARow is after how many failures without a success a worker gives the run up: the store is
// gone and the rest would measure nothing.
const errorsInARow = 100

// Run runs one workload on t and returns what it saw. Failed operations are counted, not returned;
// the error says that the run itself was impossible, given up or cancelled, or that a verified read
// was wrong (*ValueError). A result comes with the error when anything was measured.
//
// Keys that a run inserts beyond the loaded ones start at the same place in every run.
func Run(ctx context.Context, t Target, s Spec) (*Result, error) {
	return run(ctx, t, s, sleep)
}

func run(ctx context.Context, t Target, s Spec, sleep func(time.Duration)) (*Result, error) {
	s, load, err := s.resolve()
	if err != nil {
		return nil, err
	}
	if _, ok := t.(Pinger); load.Share[Ping] > 0 && !ok {
		return nil, fmt.Errorf("bench: %s cannot be pinged", s.Target)
	}
	r, err := newRunner(t, s, load, sleep)
	if err != nil {
		return nil, err
	}
	if s.Warmup > 0 {
		r.phase(ctx, s.Warmup, 0)
	}
	if r.failure() == nil && ctx.Err() == nil {
		r.reset()
		if t, ok := t.(Reporter); ok {
			t.Stats() // what came before does not count
		}
		before := readUsage()
		r.phase(ctx, s.Duration, s.Ops)
		r.usage = readUsage().since(before)
		settling := time.Now()
		if load.writes() {
			r.fail(t.Settle())
		}
		r.settled = time.Since(settling)
	}
	return r.result(), errors.Join(r.failure(), ctx.Err())
}

func (w *Workload) writes() bool {
	return w.Writer || w.Share[Update]+w.Share[Insert]+w.Share[ReadModifyWrite] > 0
}

// runner is one run. Workers share it.
type runner struct {
	// Fixed after newRunner.
	target  Target
	spec    Spec
	load    Workload
	space   *Keyspace
	values  *Values
	sleep   func(time.Duration)
	workers []*worker
	hashing bool

	// Fixed during a phase.
	base    time.Time // the clock's zero
	until   int64     // ns after base; 0 = no limit
	elapsed time.Duration
	settled time.Duration
	usage   usage
	late    uint64     // operations of the open loop that were due and never started
	tickets chan int64 // of the open loop: intended starts, ns after base
	done    chan struct{}

	// With synchronisation of their own.
	front    frontier
	sequence atomic.Uint64
	stopped  atomic.Bool
	rec      recorder

	mu  sync.Mutex
	err error // guarded by mu: the first reason to give up
}

func newRunner(t Target, s Spec, load Workload, sleep func(time.Duration)) (*runner, error) {
	space, err := NewKeyspace(s.Keys, s.KeyBytes, s.Seed)
	if err != nil {
		return nil, err
	}
	r := &runner{target: t, spec: s, load: load, space: space, sleep: sleep,
		values: NewValues(s.ValueBytes, s.Seed)}
	r.front.start(s.Keys)
	r.hashing = s.Workers == 1 && s.Ops > 0 && s.Duration == 0 && s.Warmup == 0 && s.Rate == 0 &&
		!load.Writer
	zipf := NewZipf(s.Keys, ZipfTheta)
	for i := range s.Workers {
		r.workers = append(r.workers, r.newWorker(i, &r.load, zipf))
	}
	if load.Writer {
		// The overwriting worker belongs to no loop: it writes until the readers are done.
		overwrite, _ := WorkloadByName("overwrite")
		w := r.newWorker(s.Workers, &overwrite, zipf)
		w.choose.own, w.choose.of = 0, min(1, w.choose.of)
		w.background = true
		r.workers = append(r.workers, w)
	}
	return r, nil
}

func (r *runner) newWorker(i int, load *Workload, zipf Zipf) *worker {
	w := &worker{run: r, samples: make([]sample, 0, samplesHeld), choose: chooser{
		load: load, space: r.space, front: &r.front, sequence: &r.sequence, limit: r.spec.Ops,
		random: NewRand(r.spec.Seed, uint64(i)+1), zipf: zipf,
	}}
	w.key, w.value, w.read = NewBuffer(0), NewBuffer(r.values.bytes), NewBuffer(r.values.bytes)
	if r.spec.Ledger != nil {
		w.choose.own, w.choose.of = uint64(i), uint64(r.spec.Workers)
	}
	w.pinger, _ = r.target.(Pinger)
	w.visit = w.visitPair
	return w
}

func (r *runner) reset() {
	r.rec.reset()
	r.late = 0
	r.stopped.Store(false)
	for _, w := range r.workers {
		w.samples, w.hash = w.samples[:0], 0
	}
}

// now is the time since the phase began in ns.
func (r *runner) now() int64 { return int64(time.Since(r.base)) }

// phase runs all workers until the time is over, ops operations are done, or ctx ends.
func (r *runner) phase(ctx context.Context, d time.Duration, ops uint64) {
	r.base, r.until = time.Now(), int64(d)
	r.done = make(chan struct{})
	defer context.AfterFunc(ctx, func() { r.stopped.Store(true) })()
	var foreground, background sync.WaitGroup
	if r.spec.Rate > 0 {
		r.tickets = make(chan int64, len(r.workers))
		background.Go(func() { r.dispatch(ctx, ops) })
	}
	if r.spec.Progress != nil {
		background.Go(func() { r.report() })
	}
	for i, w := range r.workers {
		quota := share(ops, uint64(i), uint64(r.spec.Workers))
		switch {
		case w.background:
			background.Go(func() { w.closed(0) })
		case r.spec.Rate > 0:
			foreground.Go(w.open)
		case r.load.Fill || ops == 0:
			foreground.Go(func() { w.closed(0) }) // the shared sequence ends a fill
		case quota > 0:
			foreground.Go(func() { w.closed(quota) })
		}
	}
	foreground.Wait()
	r.elapsed = time.Since(r.base)
	r.stopped.Store(true)
	close(r.done)
	background.Wait()
	for _, w := range r.workers {
		w.flush()
	}
}

// share is the part of n that the i-th of k workers does.
func share(n, i, k uint64) uint64 {
	if i < n%k {
		return n/k + 1
	}
	return n / k
}

// dispatch hands out the starts of the open loop when they are due. It sleeps alone for all
// workers; when they are all busy it blocks, and what it hands out late keeps its intended start.
func (r *runner) dispatch(ctx context.Context, ops uint64) {
	defer close(r.tickets)
	gap := 1e9 / r.spec.Rate
	for i := uint64(0); ops == 0 || i < ops; i++ {
		due := int64(float64(i) * gap)
		if r.until > 0 && due >= r.until {
			return
		}
		now := r.now()
		if now < due {
			if !r.wait(ctx, time.Duration(due-now)) {
				return
			}
			r.rec.lag(r.now() - due)
		}
		if r.until > 0 && now >= r.until {
			r.late = uint64(float64(r.until-due) / gap)
			return
		}
		select {
		case r.tickets <- due:
		case <-r.done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// wait sleeps for d, the last part of it by the precise sleep. It reports false when the run ended.
func (r *runner) wait(ctx context.Context, d time.Duration) bool {
	// Go's timers wake an idle process up to 1 ms late: the poller counts in milliseconds.
	const precise = 1500 * time.Microsecond
	if coarse := d - precise; coarse > 0 {
		begin := time.Now()
		timer := time.NewTimer(coarse)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.done:
			return false
		case <-ctx.Done():
			return false
		}
		d -= time.Since(begin)
	}
	if d > 0 {
		r.sleep(d)
	}
	return true
}

// report calls Progress a moment after each second, when the workers have merged their samples.
func (r *runner) report() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for second := int64(0); ; second++ {
		select {
		case <-tick.C:
		case <-r.done:
			return
		}
		if second > 0 {
			r.spec.Progress(r.rec.second(second - 1))
		}
	}
}

// fail ends the run for the first error it is given.
func (r *runner) fail(err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
	r.stopped.Store(true)
}

func (r *runner) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

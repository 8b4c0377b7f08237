package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"kvd/bench"
)

// The loops here are closed and read the clock once in 64 operations, unlike those of kvd/bench,
// which read it twice per operation: with engines that answer in 300 ns the clock would be a
// quarter of what is compared. Keys and values are made inside the clock, alike for everyone; the
// header of the report says what that costs.
const clockEvery = 64

// sampleEvery is how many reads go by between two whose value is checked byte by byte. That the
// key was found, or was not, is checked at every read.
const sampleEvery = 64

// data is what all engines are given: it follows from the seed alone.
type data struct {
	keys       uint64
	space      *bench.Keyspace
	values     *bench.Values
	zipf       bench.Zipf
	second     bench.Permutation // the order of overwrite
	seed       uint64
	valueBytes int
}

func newData(c config) (*data, error) {
	space, err := bench.NewKeyspace(uint64(c.Keys), bench.DefaultKeyBytes, c.Seed)
	if err != nil {
		return nil, err
	}
	return &data{
		keys:       uint64(c.Keys),
		space:      space,
		values:     bench.NewValues(c.ValueBytes, c.Seed),
		zipf:       bench.NewZipf(uint64(c.Keys), bench.ZipfTheta),
		second:     bench.NewPermutation(uint64(c.Keys), c.Seed+1),
		seed:       c.Seed,
		valueBytes: c.ValueBytes,
	}, nil
}

// order gives the number of the i-th key to write.
type order func(i uint64) bench.Number

func (d *data) ascending() order { return d.space.Loaded }

func (d *data) shuffled() order { return d.space.Shuffled }

func (d *data) overwriting() order {
	return func(i uint64) bench.Number { return d.space.Loaded(d.second.At(i)) }
}

func (d *data) random(salt uint64) *rand.Rand { return bench.NewRand(d.seed, salt) }

// buffers returns room for a key and a value, for one goroutine.
func (d *data) buffers() (key, value []byte) {
	return bench.NewBuffer(0), bench.NewBuffer(d.valueBytes)
}

// outcome of a timed loop.
type outcome struct {
	ops  uint64
	took time.Duration
	used usage
}

// cpuMicros is the processor time of one operation. It hardly depends on what else the machine
// does, so it is what to look at when the machine was not idle.
func (o outcome) cpuMicros() float64 { return o.used.cpu.Seconds() * 1e6 / float64(max(o.ops, 1)) }

func (o outcome) rate() float64 { return float64(o.ops) / max(o.took.Seconds(), 1e-9) }

// write puts every key once, in the given order, shared out to writers by residue. It stops early
// after limit, which only engines meet that are slow by design; with one writer the keys written
// are then the first outcome.ops of the order.
func (d *data) write(t store, writers int, o order, version uint64,
	limit time.Duration,
) (outcome, error) {
	return parallel(writers, func(w int, start time.Time) (uint64, error) {
		key, value := d.buffers()
		done := uint64(0)
		for i := uint64(w); i < d.keys; i += uint64(writers) {
			if done%clockEvery == 0 && time.Since(start) > limit {
				break
			}
			n := o(i)
			key = d.space.AppendKey(key[:0], n)
			value = d.values.Append(value[:0], n, version)
			if err := t.Put(key, value); err != nil {
				return done, err
			}
			done++
		}
		return done, nil
	})
}

// rest writes what write left over, outside the clock.
func (d *data) rest(t store, o order, version, done uint64) error {
	var key, value []byte
	pair := func(i int) ([]byte, []byte) {
		n := o(done + uint64(i))
		key = d.space.AppendKey(key[:0], n)
		value = d.values.Append(value[:0], n, version)
		return key, value
	}
	count := int(d.keys - done)
	if b, ok := t.(bulkLoader); ok {
		return b.Load(count, pair)
	}
	for i := range count {
		if err := t.Put(pair(i)); err != nil {
			return err
		}
	}
	return nil
}

// writeFor puts random keys for a time, reading the clock at each: for writes that sync.
func (d *data) writeFor(t store, writers int, version uint64,
	limit time.Duration,
) (outcome, error) {
	return parallel(writers, func(w int, start time.Time) (uint64, error) {
		key, value := d.buffers()
		random := d.random(uint64(w) + 1)
		done := uint64(0)
		for time.Since(start) < limit {
			n := d.space.Loaded(random.Uint64N(d.keys))
			key = d.space.AppendKey(key[:0], n)
			value = d.values.Append(value[:0], n, version)
			if err := t.Put(key, value); err != nil {
				return done, err
			}
			done++
		}
		return done, nil
	})
}

// reader is the state of one reading goroutine.
type reader struct {
	*data
	t        store
	low, top uint64 // versions a value may have
	random   *rand.Rand
	drawn    []bench.Number // Zipfian numbers, drawn before the clock starts
	count    uint64
	key, buf []byte
	_        [128]byte // no cache line is shared with the next reader
}

func (d *data) newReader(t store, low, top, salt uint64) *reader {
	r := &reader{data: d, t: t, low: low, top: top, random: d.random(salt)}
	r.key, r.buf = d.buffers()
	return r
}

// operation is what a reader repeats.
type operation func(*reader) error

// readFor repeats op in readers goroutines for a time.
func (d *data) readFor(t store, readers int, limit time.Duration, low, top uint64,
	zipfian bool, op operation,
) (outcome, error) {
	rs := make([]*reader, readers)
	for i := range rs {
		rs[i] = d.newReader(t, low, top, uint64(i)+1000)
		if zipfian {
			rs[i].draw()
		}
	}
	return parallel(readers, func(w int, start time.Time) (uint64, error) {
		r := rs[w]
		for ; ; r.count++ {
			if r.count%clockEvery == 0 && time.Since(start) > limit {
				return r.count, nil
			}
			if err := op(r); err != nil {
				return r.count, err
			}
		}
	})
}

// draw makes a million Zipfian numbers. Drawing inside the clock would cost two powers per read.
func (r *reader) draw() {
	r.drawn = make([]bench.Number, 1<<20)
	for i := range r.drawn {
		r.drawn[i] = r.space.Shuffled(r.zipf.Next(r.random))
	}
}

func readUniform(r *reader) error {
	return r.read(r.t.Get, r.space.Loaded(r.random.Uint64N(r.keys)))
}

func readZipfian(r *reader) error {
	return r.read(r.t.Get, r.drawn[r.count%uint64(len(r.drawn))])
}

// getter is the shape of Target.Get.
type getter = func(dst, key []byte) ([]byte, bool, error)

func (r *reader) read(get getter, n bench.Number) error {
	r.key = r.space.AppendKey(r.key[:0], n)
	v, found, err := get(r.buf[:0], r.key)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("peers: key %s was written and is not there", r.key)
	}
	r.buf = v
	if r.count%sampleEvery == 0 {
		return r.check(n, v)
	}
	return nil
}

func (r *reader) check(n bench.Number, value []byte) error {
	version, err := bench.CheckValue(n, value)
	if err != nil {
		return err
	}
	if version < r.low || version > r.top {
		return fmt.Errorf("peers: key %s has version %d, not %d to %d",
			r.space.AppendKey(nil, n), version, r.low, r.top)
	}
	return nil
}

// missWith reads keys that do not exist.
func missWith(get getter) operation {
	return func(r *reader) error {
		n := r.space.Missing(r.random.Uint64N(r.keys))
		r.key = r.space.AppendKey(r.key[:0], n)
		v, found, err := get(r.buf[:0], r.key)
		if err != nil {
			return err
		}
		if found {
			return fmt.Errorf("peers: key %s was never written and is there: %q", r.key, v)
		}
		return nil
	}
}

// seekPairs is how many pairs a short scan reads: the one it seeks and the next ten.
const seekPairs = 11

// seekTen makes an iterator, seeks a key that exists, moves on ten times and drops the iterator.
func seekTen(r *reader) error {
	i := r.random.Uint64N(r.keys)
	n := r.space.Loaded(i)
	r.key = r.space.AppendKey(r.key[:0], n)
	var bad error
	seen, sampled := 0, r.count%sampleEvery == 0
	got, err := r.t.Scan(r.key, seekPairs, func(key, value []byte) bool {
		if sampled && bad == nil {
			bad = r.pair(r.space.Loaded(i+uint64(seen)), key, value)
		}
		seen++
		return true
	})
	if err != nil {
		return err
	}
	if want := min(seekPairs, r.keys-i); uint64(got) != want {
		return fmt.Errorf("peers: scan from %s gave %d pairs, not %d", r.key, got, want)
	}
	return bad
}

// pair checks that a scan met the key it should.
func (r *reader) pair(want bench.Number, key, value []byte) error {
	if n, ok := r.space.Parse(key); !ok || n != want {
		return fmt.Errorf("peers: scan met key %q, not %s", key, r.space.AppendKey(nil, want))
	}
	return r.check(want, value)
}

// scanAll reads every pair in each of readers goroutines.
func (d *data) scanAll(t store, readers int, low, top uint64) (outcome, error) {
	return parallel(readers, func(w int, _ time.Time) (uint64, error) {
		r := d.newReader(t, low, top, 0)
		var bad error
		first := d.space.AppendKey(nil, d.space.Loaded(0))
		got, err := t.Scan(first, -1, func(key, value []byte) bool {
			if r.count%sampleEvery == 0 && bad == nil {
				bad = r.pair(d.space.Loaded(r.count), key, value)
			}
			r.count++
			return true
		})
		if err == nil && uint64(got) != d.keys {
			err = fmt.Errorf("peers: full scan gave %d pairs of %d", got, d.keys)
		}
		if err == nil {
			err = bad
		}
		return uint64(got), err
	})
}

// pacer lets a writer make so many writes per second. It sleeps only when it is a millisecond
// ahead: shorter sleeps are not kept, and a writer that fell behind makes up for it.
type pacer struct {
	start time.Time
	rate  float64 // 0: full speed
}

func (p pacer) wait(done uint64) {
	if p.rate == 0 || done%16 != 0 {
		return
	}
	due := time.Duration(float64(done) / p.rate * float64(time.Second))
	if ahead := due - time.Since(p.start); ahead >= time.Millisecond {
		time.Sleep(ahead)
	}
}

// beside runs one reader, timed at each read, next to one writer of so many writes per second; 0 is
// full speed.
func (d *data) beside(t store, limit time.Duration, low, version uint64, pace float64,
) (reads, writes outcome, latency *hdrhistogram.Histogram, err error) {
	latency = hdrhistogram.New(1, int64(time.Minute), 3)
	var stop atomic.Bool
	var wrote sync.WaitGroup
	var writeErr error
	runtime.GC() // as in parallel, but before the writer starts too
	wrote.Go(func() {
		key, value := d.buffers()
		random, start := d.random(2000), time.Now()
		p := pacer{start, pace}
		for !stop.Load() && writeErr == nil {
			n := d.space.Loaded(random.Uint64N(d.keys))
			key = d.space.AppendKey(key[:0], n)
			value = d.values.Append(value[:0], n, version)
			writeErr = t.Put(key, value)
			writes.ops++
			p.wait(writes.ops)
		}
		writes.took = time.Since(start)
	})
	timed := func(r *reader) error {
		n := r.space.Loaded(r.random.Uint64N(r.keys))
		before := time.Now()
		err := r.read(r.t.Get, n)
		_ = latency.RecordValue(int64(time.Since(before))) // bounded by the minute
		return err
	}
	reads, err = d.readFor(t, 1, limit, low, version, false, timed)
	stop.Store(true)
	wrote.Wait()
	if err == nil {
		err = writeErr
	}
	return reads, writes, latency, err
}

// parallel runs fn in n goroutines and sums what they did; the time ends with the last of them.
func parallel(n int, fn func(w int, start time.Time) (uint64, error)) (outcome, error) {
	var all sync.WaitGroup
	done, errs := make([]uint64, n), make([]error, n)
	runtime.GC() // the garbage of the row before is no part of this one
	start, used := time.Now(), usedNow()
	for w := range n {
		all.Go(func() { done[w], errs[w] = fn(w, start) })
	}
	all.Wait()
	o := outcome{took: time.Since(start), used: usedNow().minus(used)}
	for w := range n {
		o.ops += done[w]
		if errs[w] != nil {
			return o, errs[w]
		}
	}
	return o, nil
}

package lsm

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"kvd/compaction"
	"kvd/lsm/vfs"
)

var (
	modelSeeds = flag.Int("model.seeds", defaultModelSeeds, "seeds of the engine model test")
	modelSeed  = flag.Uint64("model.seed", 0, "run this seed of the engine model test only")
	modelOps   = flag.Int("model.ops", 150, "operations of each seed")
)

// TestModel runs random operations against a map: under options down to absurdly small sizes, with
// a loss of power at a random file system operation, recovery of what that leaves, sometimes a
// second loss during the recovery, and on. A failure prints the command that repeats it.
func TestModel(t *testing.T) {
	first, n := uint64(1), uint64(*modelSeeds)
	if *modelSeed != 0 {
		first, n = *modelSeed, 1
	}
	const lanes = 4
	var recoveries, crashes atomic.Int64
	t.Run("seeds", func(t *testing.T) {
		for lane := range uint64(lanes) {
			t.Run(fmt.Sprint(lane), func(t *testing.T) {
				t.Parallel()
				for seed := first + lane; seed < first+n; seed += lanes {
					m := newModelRun(t, seed)
					m.run()
					recoveries.Add(m.recoveries)
					crashes.Add(m.crashes)
					if t.Failed() {
						return
					}
				}
			})
		}
	})
	t.Logf("%d seeds, %d recoveries, %d of them after a loss of power", n, recoveries.Load(),
		crashes.Load())
}

// modelWrite is one commit: pairs in order, a nil value being a delete.
type modelWrite struct {
	keys   []string
	values [][]byte
}

type modelRun struct {
	t    *testing.T
	seed uint64
	r    *rand.Rand
	opts Options
	mem  *vfs.Mem
	db   *DB

	state   map[string]string // contents before writes
	writes  []modelWrite      // since the last recovery
	durable atomic.Int64      // how many of writes must survive a crash
	started atomic.Int64      // how many may

	armed   atomic.Int64 // file system operations until the crash
	image   atomic.Pointer[modelImage]
	imageAt rand.PCG

	recoveries, crashes int64
	snaps               []*modelSnap
	trace               []string
}

// modelImage is the disk after a crash and the range of commits that it may hold.
type modelImage struct {
	disk   *vfs.Mem
	lo, hi int64
	mode   vfs.CrashMode
}

type modelSnap struct {
	snap  *Snapshot
	it    *Iter
	state map[string]string
}

func newModelRun(t *testing.T, seed uint64) *modelRun {
	r := rand.New(rand.NewPCG(seed, 1))
	m := &modelRun{t: t, seed: seed, r: r, mem: vfs.NewMem(), state: map[string]string{}}
	m.imageAt = *rand.NewPCG(seed, 2)
	pick := func(values ...int64) int64 { return values[r.IntN(len(values))] }
	m.opts = Options{
		MemtableBytes:    pick(1<<10, 2<<10, 4<<10, 32<<10, 1<<20),
		CacheBytes:       pick(-1, 1, 4<<10, 1<<20),
		BlockBytes:       int(pick(1, 64, 256, 4096)),
		FilterBitsPerKey: int(pick(-1, 1, 10, 20)),
		Compaction: compaction.Config{
			BaseBytes:        uint64(pick(1<<10, 4<<10, 64<<10)),
			TableBytes:       uint64(pick(1, 512, 4<<10, 64<<10)),
			Multiplier:       int(pick(2, 4, 10)),
			LevelZeroTrigger: int(pick(1, 2, 4)),
		},
	}
	return m
}

func (m *modelRun) failf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("seed %d: %s\nafter: %s\nrepeat: go test ./lsm -run 'TestModel$' -model.seed=%d -model.ops=%d",
		m.seed, fmt.Sprintf(format, args...), strings.Join(m.trace, " "), m.seed, *modelOps)
}

// disk is the file system of the run: it takes the image of a crash when its time has come.
func (m *modelRun) disk() vfs.FS {
	return vfs.NewFault(m.mem, func(vfs.Op) error {
		if m.armed.Add(-1) != 0 {
			return nil
		}
		image := &modelImage{lo: m.durable.Load()}
		r := rand.New(&m.imageAt)
		image.mode = vfs.CrashModes[r.IntN(len(vfs.CrashModes))]
		image.disk = m.mem.Crash(r, image.mode)
		image.hi = m.started.Load()
		m.image.Store(image)
		return nil
	})
}

func (m *modelRun) run() {
	m.arm(400)
	m.open()
	for range *modelOps {
		m.step()
		if image := m.image.Load(); image != nil {
			m.crash(image)
		}
	}
	m.dropSnaps()
	m.compare("at the end")
	m.reopen()
	if err := m.db.Close(); err != nil {
		m.failf("close: %v", err)
	}
	if n := m.mem.OpenFiles(); n != 0 {
		m.failf("%d files are left open", n)
	}
}

func (m *modelRun) arm(within int) {
	m.image.Store(nil)
	m.armed.Store(int64(1 + m.r.IntN(within)))
}

func (m *modelRun) open() {
	m.opts.FS = m.disk()
	db, err := Open("data", m.opts)
	if err != nil {
		m.failf("open: %v", err)
	}
	m.db = db
	m.recoveries++
}

func (m *modelRun) key() string {
	const pool = 60
	i := m.r.IntN(pool)
	switch i % 4 {
	case 0:
		return fmt.Sprintf("k%03d", i)
	case 1:
		return strings.Repeat("long prefix ", 3) + fmt.Sprint(i)
	case 2:
		return string([]byte{0, byte(i)})
	}
	return strings.Repeat("\xff", 1+i%7) + string(rune('a'+i%16))
}

func (m *modelRun) value() []byte {
	size := []int{0, 1, 10, 100, 300, 1500}[m.r.IntN(6)]
	value := make([]byte, size)
	if size > 0 {
		value[0] = byte(m.r.Uint32())
		for i := 1; i < size; i++ {
			value[i] = byte(len(m.writes)) + byte(i)*value[0]
		}
	}
	return value
}

func (m *modelRun) step() {
	switch n := m.r.IntN(100); {
	case n < 40:
		m.write(1)
	case n < 50:
		m.write(2 + m.r.IntN(20))
	case n < 65:
		m.get()
	case n < 78:
		m.scan(m.db.NewIter, m.now())
	case n < 82:
		m.snapshot()
	case n < 86:
		m.useSnap()
	case n < 90:
		m.did("flush", m.db.Flush())
		m.allDurable()
	case n < 93:
		m.compact()
	case n < 95:
		m.checkpoint()
	case n < 97:
		m.reopen()
	case n < 99:
		if err := m.db.Check(); err != nil {
			m.failf("check: %v", err)
		}
	default:
		m.dropSnaps()
	}
}

func (m *modelRun) did(what string, err error) {
	m.trace = append(m.trace, what)
	if err != nil {
		m.failf("%s: %v", what, err)
	}
}

func (m *modelRun) allDurable() { m.durable.Store(int64(len(m.writes))) }

func (m *modelRun) write(n int) {
	var b Batch
	var w modelWrite
	for range n {
		key, value := m.key(), []byte(nil)
		if m.r.IntN(4) == 0 {
			b.Delete([]byte(key))
		} else {
			value = m.value()
			b.Put([]byte(key), value)
		}
		w.keys, w.values = append(w.keys, key), append(w.values, value)
	}
	d := Durability(m.r.IntN(3))
	m.writes = append(m.writes, w)
	m.started.Store(int64(len(m.writes)))
	m.did(fmt.Sprintf("write%d/%d", n, d), m.db.Apply(&b, d))
	if d == Sync {
		m.allDurable()
	}
}

// now is the contents after all writes.
func (m *modelRun) now() map[string]string {
	state := maps.Clone(m.state)
	for _, w := range m.writes {
		w.apply(state)
	}
	return state
}

func (w *modelWrite) apply(state map[string]string) {
	for i, key := range w.keys {
		if w.values[i] == nil {
			delete(state, key)
		} else {
			state[key] = string(w.values[i])
		}
	}
}

func (m *modelRun) get() {
	state, key := m.now(), m.key()
	m.checkGet(key, state, m.db.Get)
}

func (m *modelRun) checkGet(key string, state map[string]string, get func([]byte) ([]byte, error)) {
	value, err := get([]byte(key))
	want, ok := state[key]
	if ok && (err != nil || string(value) != want) || !ok && !errors.Is(err, ErrNotFound) {
		m.failf("get %q = %d bytes, %v; want %d bytes, there: %v", key, len(value), err, len(want), ok)
	}
}

// scan walks a random range with random moves in both directions.
func (m *modelRun) scan(iter func(IterOptions) *Iter, state map[string]string) {
	var o IterOptions
	if m.r.IntN(2) == 0 {
		o.Lower = []byte(m.key())
	}
	if m.r.IntN(2) == 0 {
		o.Upper = []byte(m.key())
	}
	m.trace = append(m.trace, "scan")
	it := iter(o)
	m.walk(it, o, state)
	if err := it.Close(); err != nil {
		m.failf("close iterator: %v", err)
	}
}

func (m *modelRun) walk(it *Iter, o IterOptions, state map[string]string) {
	var keys []string
	for _, k := range slices.Sorted(maps.Keys(state)) {
		if k >= string(o.Lower) && (o.Upper == nil || k < string(o.Upper)) {
			keys = append(keys, k)
		}
	}
	at, on := 0, false
	for range 1 + m.r.IntN(30) {
		var ok bool
		move := ""
		switch n := m.r.IntN(12); {
		case n == 0 || !on && n < 4:
			move, ok, at = "First", it.First(), 0
		case n == 1 || !on && n < 8:
			move, ok, at = "Last", it.Last(), len(keys)-1
		case n == 2 || !on && n < 10:
			key := m.key()
			move, ok = "SeekGE", it.SeekGE([]byte(key))
			at, _ = slices.BinarySearch(keys, key)
		case n == 3 || !on:
			key := m.key()
			move, ok = "SeekLT", it.SeekLT([]byte(key))
			at, _ = slices.BinarySearch(keys, key)
			at--
		case n < 8:
			move, ok, at = "Next", it.Next(), at+1
		default:
			move, ok, at = "Prev", it.Prev(), at-1
		}
		on = at >= 0 && at < len(keys)
		if ok != on || it.Err() != nil {
			m.failf("%s [%q,%q) landed: %v, want %v, %v", move, o.Lower, o.Upper, ok, on, it.Err())
		}
		if on && (string(it.Key()) != keys[at] || string(it.Value()) != state[keys[at]]) {
			m.failf("%s is on %q (%d bytes), want %q (%d bytes)", move, it.Key(), len(it.Value()),
				keys[at], len(state[keys[at]]))
		}
	}
}

func (m *modelRun) snapshot() {
	m.trace = append(m.trace, "snapshot")
	s := &modelSnap{state: m.now()}
	if m.r.IntN(2) == 0 {
		s.it = m.db.NewIter(IterOptions{})
	} else {
		s.snap = m.db.NewSnapshot()
	}
	m.snaps = append(m.snaps, s)
}

func (m *modelRun) useSnap() {
	if len(m.snaps) == 0 {
		return
	}
	m.trace = append(m.trace, "use-snapshot")
	s := m.snaps[m.r.IntN(len(m.snaps))]
	if s.it != nil {
		m.walk(s.it, IterOptions{}, s.state)
		return
	}
	m.scan(s.snap.NewIter, s.state)
	m.checkGet(m.key(), s.state, s.snap.Get)
}

func (m *modelRun) dropSnaps() {
	for _, s := range m.snaps {
		if s.it != nil {
			m.did("close-iterator", s.it.Close())
		} else {
			m.did("close-snapshot", s.snap.Close())
		}
	}
	m.snaps = nil
}

func (m *modelRun) compact() {
	var lo, hi []byte
	if m.r.IntN(2) == 0 {
		lo, hi = []byte(m.key()), []byte(m.key())
		if bytes.Compare(lo, hi) > 0 {
			lo, hi = hi, lo
		}
	}
	m.did("compact", m.db.Compact(context.Background(), lo, hi))
	m.allDurable()
}

func (m *modelRun) checkpoint() {
	dir := fmt.Sprintf("copy%d", m.r.Uint32())
	m.did("checkpoint", m.db.Checkpoint(dir))
	m.allDurable()
	o := m.opts
	o.ReadOnly = m.r.IntN(2) == 0
	copied, err := Open(dir, o)
	if err != nil {
		m.failf("open checkpoint: %v", err)
	}
	m.compareDB(copied, m.now(), "in the checkpoint")
	if err := copied.Close(); err != nil {
		m.failf("close checkpoint: %v", err)
	}
}

func (m *modelRun) reopen() {
	m.dropSnaps()
	m.did("close", m.db.Close())
	m.allDurable()
	m.open()
	m.compare("reopened")
}

func (m *modelRun) compare(when string) {
	m.compareDB(m.db, m.now(), when)
	if err := m.db.Check(); err != nil {
		m.failf("%s: %v", when, err)
	}
}

func (m *modelRun) compareDB(db *DB, want map[string]string, when string) {
	if got := m.contents(db); !maps.Equal(got, want) {
		m.failf("%s: holds %s", when, difference(got, want))
	}
}

func (m *modelRun) contents(db *DB) map[string]string {
	got := map[string]string{}
	it := db.NewIter(IterOptions{})
	for key, value := range it.All() {
		got[string(key)] = string(value)
	}
	if err := it.Close(); err != nil {
		m.failf("read everything: %v", err)
	}
	return got
}

func difference(got, want map[string]string) string {
	var b strings.Builder
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			fmt.Fprintf(&b, "\n%q: %d bytes (%v), want %d bytes", k, len(g), ok, len(v))
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			fmt.Fprintf(&b, "\n%q: not wanted", k)
		}
	}
	return b.String()
}

// crash goes on with the disk that the loss of power left. What is recovered must be the contents
// after some prefix of the commits that has every durable one in it.
func (m *modelRun) crash(image *modelImage) {
	m.crashes++
	m.trace = append(m.trace, fmt.Sprintf("crash/%v", image.mode))
	m.dropSnaps()
	if err := m.db.Close(); err != nil {
		m.failf("close the crashed database: %v", err)
	}
	m.mem = image.disk
	writes := m.writes
	m.writes = nil
	m.durable.Store(0)
	m.started.Store(0)
	m.arm(200)
	m.opts.FS = m.disk()
	again := m.r.IntN(3) == 0
	db, err := Open("data", m.opts)
	if err != nil {
		m.failf("recover: %v", err)
	}
	m.recoveries++
	if second := m.image.Load(); again && second != nil {
		m.did("close", db.Close()) // the power fails during the recovery
		m.mem = second.disk
		m.arm(1000)
		m.open()
	} else {
		m.db = db
		m.arm(1000)
	}
	got := m.contents(m.db)
	state := maps.Clone(m.state)
	for i := int64(0); i <= image.hi; i++ {
		if i > 0 {
			writes[i-1].apply(state)
		}
		if i >= image.lo && maps.Equal(got, state) {
			m.state = state
			return
		}
	}
	m.failf("recovered no prefix between %d and %d of %d commits; against all of them: %s",
		image.lo, image.hi, len(writes), difference(got, state))
}

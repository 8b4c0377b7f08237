package compaction

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"testing"

	"kvd/sstable"
)

var simFlushes = flag.Int("sim.flushes", defaultSimFlushes,
	"flushes in TestSimulate, all shapes together")

// simEntryBytes is the size of every entry in a simulation.
const simEntryBytes = 128

// simTree is a tree of described tables. Keys are numbers below a key space; a table is a
// range of them with a density, so that a merge is arithmetic: over each stretch the densities of
// the inputs combine as independent chances.
type simTree struct {
	config  Config
	picker  *Picker
	levels  Levels
	sizes   Sizes
	num     uint64
	seq     sstable.Seq
	flushed uint64
	written uint64 // by merges
	moved   uint64
	jobs    int
	maxZero int
	points  []uint64
}

func makeSimTree(c Config) *simTree {
	return &simTree{config: c.WithDefaults(), picker: NewPicker(c)}
}

func (s *simTree) table(lo, hi, entries uint64, from, to sstable.Seq) *sstable.Meta {
	t := new(struct {
		sstable.Meta
		keys [16]byte
	})
	s.num++
	binary.BigEndian.PutUint64(t.keys[:8], lo)
	binary.BigEndian.PutUint64(t.keys[8:], hi)
	t.Num, t.Entries, t.Bytes = s.num, max(entries, 1), max(entries, 1)*simEntryBytes
	t.Smallest = sstable.MakeKey(t.keys[:8], to, sstable.KindPut)
	t.Largest = sstable.MakeKey(t.keys[8:], from, sstable.KindPut)
	t.MinSeq, t.MaxSeq = from, to
	return &t.Meta
}

func simRange(m *sstable.Meta) (lo, end uint64) {
	return binary.BigEndian.Uint64(m.Smallest.User), binary.BigEndian.Uint64(m.Largest.User) + 1
}

func simDensity(m *sstable.Meta) float64 {
	lo, end := simRange(m)
	return min(float64(m.Entries)/float64(end-lo), 1)
}

func (s *simTree) flush(lo, hi, entries uint64) {
	entries = min(entries, hi-lo+1)
	m := s.table(lo, hi, entries, s.seq+1, s.seq+sstable.Seq(entries))
	s.seq += sstable.Seq(entries)
	s.flushed += m.Bytes
	var c Change
	c.Added[0] = []*sstable.Meta{m}
	s.apply(&c)
	s.maxZero = max(s.maxZero, len(s.levels[0]))
}

func (s *simTree) apply(c *Change) {
	next, err := s.levels.Apply(c)
	if err != nil {
		panic(err)
	}
	for i := range c.Removed {
		s.sizes[i] += tablesBytes(c.Added[i]) - tablesBytes(c.Removed[i])
	}
	s.levels = next
}

func (s *simTree) install(j *Job, added []*sstable.Meta) {
	s.jobs++
	c := j.Change(nil)
	if j.Move {
		s.moved += j.InputBytes()
	} else {
		c.Added[j.Target] = added
		s.written += tablesBytes(added)
	}
	s.apply(&c)
}

// merge makes the outputs of a job.
func (s *simTree) merge(j *Job) (added []*sstable.Meta) {
	if j.Move {
		return nil
	}
	from, to := sstable.SeqMax, sstable.Seq(0)
	s.points = s.points[:0]
	var lists [3][]*sstable.Meta
	lists[0], lists[1] = j.Inputs[0], j.Inputs[1]
	cut := cutter{tableBytes: j.TableBytes}
	if len(j.Below) > 0 {
		lists[2], cut.next = j.Below[0], j.Below[0]
	}
	for i, list := range lists {
		for _, m := range list {
			lo, end := simRange(m)
			s.points = append(s.points, lo, end)
			if i < 2 {
				from, to = min(from, m.MinSeq), max(to, m.MaxSeq)
			}
		}
	}
	slices.Sort(s.points)
	s.points = slices.Compact(s.points)
	var key [8]byte
	var have float64 // entries in the open output, which covers [start, end)
	var start, end uint64
	finish := func() {
		if have > 0 {
			n := min(uint64(math.Round(have)), end-start)
			added = append(added, s.table(start, end-1, n, from, to))
		}
		have = 0
	}
	upper, lower := j.Inputs[0], j.Inputs[1]
	full := float64(max(j.TableBytes/simEntryBytes, 1))
	for i := 0; i+1 < len(s.points); i++ {
		a, b := s.points[i], s.points[i+1]
		none := 1.0
		for n, m := range upper {
			lo, hi := simRange(m)
			if j.Level > 0 && hi <= a {
				upper = upper[1:]
				continue
			}
			if lo < b && a < hi {
				none *= 1 - simDensity(m)
			}
			if j.Level > 0 && (n > 0 || lo >= b) {
				break
			}
		}
		for len(lower) > 0 {
			lo, hi := simRange(lower[0])
			if hi <= a {
				lower = lower[1:]
				continue
			}
			if lo < b {
				none *= 1 - simDensity(lower[0])
			}
			break
		}
		if none == 1 {
			continue
		}
		binary.BigEndian.PutUint64(key[:], a)
		if have > 0 && cut.before(key[:], uint64(have*simEntryBytes)) {
			finish()
		}
		for a < b {
			if have == 0 {
				start = a
				cut.opened(key[:])
			}
			room := uint64(math.Ceil((full - have) / (1 - none)))
			n := min(b-a, max(room, 1))
			have += float64(n) * (1 - none)
			a += n
			end = a
			if have >= full {
				binary.BigEndian.PutUint64(key[:], a)
				finish()
			}
		}
	}
	finish()
	return added
}

// settle runs jobs one at a time until there are none, checking that there is one whenever there
// should be.
func (s *simTree) settle(t testing.TB) {
	for n := 0; ; n++ {
		pressure := s.config.Pressure(&s.sizes, float64(len(s.levels[0])))
		j, ok := s.picker.Pick(&s.levels, nil)
		if !ok {
			if pressure > 0 {
				t.Fatalf("pressure %.3f but no job; sizes %v", pressure, s.sizes)
			}
			return
		}
		if n > 100_000 {
			t.Fatalf("picker does not come to rest: %v", j)
		}
		s.install(&j, s.merge(&j))
	}
}

func (s *simTree) writeAmp() float64 {
	return float64(s.flushed+s.written) / float64(s.flushed)
}

func (s *simTree) String() string {
	t := s.config.Targets(&s.sizes)
	out := fmt.Sprintf("write amp %.2f, %.1f jobs per flush, %.1f%% of bytes moved, "+
		"max level-0 tables %d, space over bottom %.3f\n", s.writeAmp(),
		float64(s.jobs)/(float64(s.flushed)/simFlushBytes),
		100*float64(s.moved)/float64(s.moved+s.written), s.maxZero,
		float64(s.sizes.Total())/float64(max(s.sizes[bottomLevel], 1)))
	for i := range s.levels {
		if n := len(s.levels[i]); n > 0 {
			out += fmt.Sprintf("  L%d %5d tables %8.2f of %8.2f flushes\n", i, n,
				float64(s.sizes[i])/simFlushBytes, float64(t.Bytes[i])/simFlushBytes)
		}
	}
	return out
}

const (
	simFlushEntries = 8192
	simFlushBytes   = simFlushEntries * simEntryBytes
)

var simConfig = Config{BaseBytes: 4 * simFlushBytes, TableBytes: simFlushBytes / 2}

// simShapes are the ways keys arrive. Each yields the range and entries of flush i.
var simShapes = []struct {
	name  string
	share float64 // of the flushes
	bound float64 // on write amplification
	flush func(r *rand.Rand, i, space uint64) (lo, hi, entries uint64)
}{
	{"random", 0.4, 16, func(r *rand.Rand, _, space uint64) (uint64, uint64, uint64) {
		return r.Uint64N(64), space - 1 - r.Uint64N(64), simFlushEntries
	}},
	{"sequential", 0.3, 3.5, func(_ *rand.Rand, i, space uint64) (uint64, uint64, uint64) {
		lo := i * simFlushEntries % space
		return lo, lo + simFlushEntries - 1, simFlushEntries
	}},
	{"zipf", 0.3, 14, func(r *rand.Rand, _, space uint64) (uint64, uint64, uint64) {
		width := max(space>>r.Uint64N(8), 2*simFlushEntries)
		lo := uint64(math.Pow(r.Float64(), 4) * float64(space-width))
		return lo, lo + width - 1, simFlushEntries
	}},
}

// TestSimulate drives the picker through the life of a database without writing a byte of it.
// A million flushes, by default, take about ten seconds.
func TestSimulate(t *testing.T) {
	const space = 128 * simFlushEntries
	defer debug.SetGCPercent(debug.SetGCPercent(2000)) // the heap is tiny
	for _, shape := range simShapes {
		t.Run(shape.name, func(t *testing.T) {
			s := makeSimTree(simConfig)
			r := rand.New(rand.NewPCG(1, 2))
			flushes := uint64(float64(*simFlushes) * shape.share)
			if testing.Short() {
				flushes /= 10
			}
			for i := range flushes {
				s.flush(shape.flush(r, i, space))
				s.settle(t)
				if i%1000 == 0 || i == flushes-1 {
					s.checkRest(t)
				}
			}
			t.Logf("%d flushes of %s keys: %v", flushes, shape.name, s)
			if s.writeAmp() > shape.bound {
				t.Errorf("write amplification %.2f, bound %.2f", s.writeAmp(), shape.bound)
			}
			targets := s.config.Targets(&s.sizes)
			if float64(s.maxZero) > 1.25*s.config.zeroTables(&targets) {
				t.Errorf("%d tables in level 0", s.maxZero)
			}
		})
	}
}

// TestSimulateSizes overwrites trees of several sizes, in flushes, in random order.
func TestSimulateSizes(t *testing.T) {
	for _, tree := range []struct {
		flushes uint64
		bound   float64 // on write amplification
	}{{8, 3.5}, {32, 6}, {128, 8}, {512, 12}, {1500, 14}} {
		s := makeSimTree(Config{BaseBytes: 4 * simFlushBytes, TableBytes: simFlushBytes / 8})
		r := rand.New(rand.NewPCG(tree.flushes, 4))
		for i := range 4 * tree.flushes {
			if i == 2*tree.flushes {
				s.flushed, s.written = 0, 0
			}
			s.flush(simShapes[0].flush(r, i, tree.flushes*simFlushEntries))
			s.settle(t)
		}
		t.Logf("a tree of %d flushes: %v", tree.flushes, s)
		if s.writeAmp() > tree.bound {
			t.Errorf("write amplification %.2f, bound %.2f", s.writeAmp(), tree.bound)
		}
	}
}

// checkRest verifies a tree that no job wants to change.
func (s *simTree) checkRest(t testing.TB) {
	t.Helper()
	if err := s.levels.Check(); err != nil {
		t.Fatal(err)
	}
	if s.sizes != s.levels.Sizes() || s.sizes != s.picker.sizes.of(&s.levels) {
		t.Fatalf("sizes are %v, counted %v", s.levels.Sizes(), s.sizes)
	}
	targets := s.config.Targets(&s.sizes)
	for i := 1; i < bottomLevel; i++ {
		if s.sizes[i] > targets.Bytes[i] {
			t.Fatalf("level %d has %d bytes, target %d", i, s.sizes[i], targets.Bytes[i])
		}
	}
}

// TestSimulateParallel runs up to three jobs at a time, which end in any order, with flushes and a
// manual compaction in between. Every job must be complete when it starts, still fit when it ends,
// and level 0 must not be starved by the jobs of other levels.
func TestSimulateParallel(t *testing.T) {
	const space = 128 * simFlushEntries
	for seed := range uint64(4) {
		s := makeSimTree(simConfig)
		r := rand.New(rand.NewPCG(seed, 3))
		var running []Job
		var manual *Manual
		busy := func(num uint64) bool {
			for i := range running {
				in := &running[i].Inputs
				if containsNum(in[0], num) || containsNum(in[1], num) {
					return true
				}
			}
			return false
		}
		start := func(j Job) {
			if err := j.Check(&s.levels); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			running = append(running, j)
		}
		together := 0
		for i := range uint64(4000) {
			shape := simShapes[(i/500)%3]
			s.flush(shape.flush(r, i, space))
			if i%1000 == 700 {
				manual = NewManual(&s.levels, nil, nil)
			}
			for n := 0; n < 12 || len(s.levels[0]) > 12; n++ {
				if n == 10_000 {
					t.Fatalf("seed %d: level 0 stays at %d tables: %v", seed, len(s.levels[0]), s)
				}
				if manual != nil && len(running) < 3 {
					j, step := manual.Next(&s.levels, s.config, busy)
					switch step {
					case Ready:
						start(j)
					case Done:
						manual = nil
					}
				}
				if len(running) < 3 && r.IntN(3) > 0 {
					if j, ok := s.picker.Pick(&s.levels, busy); ok {
						start(j)
					}
				}
				together = max(together, len(running))
				if len(running) > 0 && r.IntN(2) == 0 {
					at := r.IntN(len(running))
					s.install(&running[at], s.merge(&running[at]))
					running = slices.Delete(running, at, at+1)
				}
			}
			if i%50 == 0 {
				if err := s.levels.Check(); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		}
		if together < 3 {
			t.Errorf("seed %d: only %d jobs ran at once", seed, together)
		}
		t.Logf("seed %d: %v", seed, s)
	}
}

func TestCompress(t *testing.T) {
	c := Config{BaseBytes: 100}
	for _, x := range []struct {
		bottom uint64
		want   string // level 0 first
	}{
		{0, "-----cc"}, {1200, "-----cc"}, {1212, "ccccccc"}, {1 << 40, "ccccccc"},
	} {
		got := ""
		for level := range NumLevels {
			if c.Compress(&Sizes{bottomLevel: x.bottom}, level) {
				got += "c"
			} else {
				got += "-"
			}
		}
		if got != x.want {
			t.Errorf("bottom %d: %s, want %s", x.bottom, got, x.want)
		}
	}
}

// TestTargetsContinuous grows a tree in small steps: no target jumps when a level is added.
func TestTargetsContinuous(t *testing.T) {
	c := Config{BaseBytes: 1 << 20}
	var prev Targets
	for total := uint64(1 << 20); total < 1<<44; total += total / 64 {
		s := Sizes{bottomLevel: total}
		got := c.Targets(&s)
		for i := got.Base; i < bottomLevel; i++ {
			was := max(prev.Bytes[i], prev.Bytes[0])
			if prev.Base != 0 && float64(got.Bytes[i]) > 1.02*float64(was) || got.Bytes[i] < was {
				t.Fatalf("at %d bytes the target of level %d goes from %d to %d",
					total, i, was, got.Bytes[i])
			}
		}
		if above := total - total/10; got.Bytes[bottomLevel] != max(above, c.BaseBytes) {
			t.Fatalf("bottom level of %d bytes expected to be %d", total, got.Bytes[bottomLevel])
		}
		// A level is kept as long as the data need no more than double to want it.
		half := Sizes{bottomLevel: total / 2}
		if was := c.Targets(&half).Drain; was != got.Base {
			t.Fatalf("at %d bytes the base is level %d, at half of that level %d is kept",
				total, got.Base, was)
		}
		prev = got
	}
	if prev.Base != 1 {
		t.Errorf("base level of a huge tree is %d", prev.Base)
	}
}

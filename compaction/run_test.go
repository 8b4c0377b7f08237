package compaction

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"kvd/sstable"
)

// model is a tree over tables in memory beside the list of everything that was written.
type model struct {
	t         testing.TB
	rand      *rand.Rand
	m         *memory
	config    Config
	picker    *Picker
	levels    Levels
	seq       sstable.Seq
	history   map[string][]entry // newest first
	snapshots []sstable.Seq
	split     int // jobs in several parts
}

func makeModel(t testing.TB, seed uint64, c Config) *model {
	return &model{t: t, rand: rand.New(rand.NewPCG(seed, 5)), m: makeMemory(), config: c,
		picker: NewPicker(c), history: make(map[string][]entry)}
}

func (o *model) flush() {
	var batch []entry
	first, keys := o.rand.IntN(200), 1+o.rand.IntN(100)
	for range 1 + o.rand.IntN(60) {
		o.seq++
		user := fmt.Sprintf("k%03d", first+o.rand.IntN(keys))
		e := entry{sstable.MakeKey([]byte(user), o.seq, sstable.KindPut),
			bytes.Repeat([]byte{byte('a' + o.seq%26)}, o.rand.IntN(80))}
		e.value = fmt.Appendf(e.value, "#%d", o.seq)
		if o.rand.IntN(3) == 0 {
			e = entry{key: sstable.MakeKey([]byte(user), o.seq, sstable.KindDelete)}
		}
		batch = append(batch, e)
		o.history[user] = append([]entry{e}, o.history[user]...)
	}
	var c Change
	c.Added[0] = []*sstable.Meta{o.m.table(batch)}
	o.apply(&c)
}

func (o *model) apply(c *Change) {
	o.t.Helper()
	next, err := o.levels.Apply(c)
	if err != nil {
		o.t.Fatal(err)
	}
	o.levels = next
	if err := next.Check(); err != nil {
		o.t.Fatal(err)
	}
}

// compact runs a job and verifies everything that is promised of its outputs.
func (o *model) compact(j Job) {
	o.t.Helper()
	if err := j.Check(&o.levels); err != nil {
		o.t.Fatal(err)
	}
	env := o.m.env(o.snapshots...)
	env.Workers = 1 + o.rand.IntN(3)
	if j.Workers(env.Workers) > 1 {
		o.split++
	}
	res, err := Run(context.Background(), j, o.config, env)
	if err != nil {
		o.t.Fatalf("%v: %v", j, err)
	}
	for i := range res.Added {
		it, err := o.m.openTable(&res.Added[i])
		if err != nil {
			o.t.Fatal(err)
		}
		if err := CheckTable(&res.Added[i], it); err != nil {
			o.t.Fatal(err)
		}
		if err := it.Close(); err != nil {
			o.t.Fatal(err)
		}
	}
	if s := res.Stats; !j.Move && s.EntriesIn != s.EntriesOut+s.Shadowed+s.Dropped {
		o.t.Fatalf("%v: %+v", j, s)
	}
	if o.m.open != 0 || o.m.aborted != 0 {
		o.t.Fatalf("%v: %d iterators open, %d outputs aborted", j, o.m.open, o.m.aborted)
	}
	c := j.Change(res.Added)
	o.apply(&c)
	if !j.Move {
		for _, in := range j.Inputs {
			for _, m := range in {
				delete(o.m.tables, m.Num)
			}
		}
	}
}

func (o *model) verify(what any) {
	o.t.Helper()
	readers := append([]sstable.Seq{o.seq}, o.snapshots...)
	for user, versions := range o.history {
		for _, at := range readers {
			want, got := readVersions(versions, at), o.m.read(&o.levels, user, at)
			if want != got {
				o.t.Fatalf("after %v: %s at %d is %q, want %q; history %v", what, user, at, got,
					want, versions)
			}
		}
	}
}

// TestRunModel flushes, takes and releases snapshots, and compacts in the order of the picker or
// by hand, comparing all keys at all snapshots with the history of writes.
func TestRunModel(t *testing.T) {
	split := 0
	defer func() {
		if split == 0 {
			t.Error("no job was split")
		}
	}()
	for seed := range uint64(16) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			o := makeModel(t, seed, Config{BaseBytes: 4 << 10, TableBytes: 512, Multiplier: 3})
			for step := range 48 {
				o.flush()
				switch o.rand.IntN(6) {
				case 0:
					o.snapshots = append(o.snapshots, o.seq)
				case 1:
					if n := len(o.snapshots); n > 0 {
						at := o.rand.IntN(n)
						o.snapshots = append(o.snapshots[:at:at], o.snapshots[at+1:]...)
					}
				}
				for {
					j, ok := o.picker.Pick(&o.levels, nil)
					if !ok {
						break
					}
					o.compact(j)
					if o.rand.IntN(10) == 0 {
						o.verify(j)
					}
				}
				if o.rand.IntN(10) == 0 {
					lo := fmt.Appendf(nil, "k%03d", o.rand.IntN(300))
					hi := fmt.Appendf(nil, "k%03d", o.rand.IntN(300))
					o.manual(lo, hi)
				}
				if step%4 == 0 {
					o.verify("settling")
				}
			}
			o.snapshots = nil
			o.manual(nil, nil)
			o.verify("full manual compaction")
			o.verifyBottom()
			split += o.split
		})
	}
}

func (o *model) manual(lo, hi []byte) {
	m := NewManual(&o.levels, lo, hi)
	for n := 0; ; n++ {
		j, step := m.Next(&o.levels, o.config, nil)
		if step == Done {
			return
		}
		if step == Blocked || n > 10_000 {
			o.t.Fatalf("manual compaction does not end")
		}
		o.compact(j)
	}
}

// verifyBottom checks that one level holds exactly the live keys, once each.
func (o *model) verifyBottom() {
	o.t.Helper()
	var entries, tombstones uint64
	bottom := o.levels.Bottom()
	for i, level := range o.levels {
		for _, m := range level {
			entries += m.Entries
			tombstones += m.Tombstones
			if i != bottom {
				o.t.Errorf("table %d is left in level %d", m.Num, i)
			}
		}
	}
	var live uint64
	for _, versions := range o.history {
		if versions[0].key.Kind() == sstable.KindPut {
			live++
		}
	}
	if tombstones > 0 || entries < live {
		o.t.Errorf("%d entries with %d tombstones for %d live keys", entries, tombstones, live)
	}
}

// jobOf makes a job in a small tree with the given base level.
func jobOf(
	l *Levels, c Config, base, level, target int, upper, lower []*sstable.Meta,
) Job {
	t := Targets{Base: base}
	t.Bytes[0] = c.BaseBytes
	return makeJob(l, c, &t, level, target, upper, lower)
}

// twoRuns returns a job that merges two overlapping tables of 200 entries each.
func twoRuns(m *memory) Job {
	var lists [2][]entry
	for n := range 400 {
		k := sstable.MakeKey(fmt.Appendf(nil, "k%03d", n/2), sstable.Seq(n+1), sstable.KindPut)
		lists[n%2] = append(lists[n%2], entry{k, []byte("0123456789")})
	}
	upper, lower := m.table(lists[1]), m.table(lists[0])
	l := Levels{5: {upper}, 6: {lower}}
	return jobOf(&l, Config{TableBytes: 1 << 10}.WithDefaults(), 6, 5, 6, l[5], l[6])
}

// TestRunAbort makes each operation fail at each count: the error comes out, every output is
// removed, every iterator closed.
func TestRunAbort(t *testing.T) {
	for _, op := range []string{"open", "next", "create", "add", "finish", "close", "sync"} {
		failures := 0
		for n := 1; ; n++ {
			m := makeMemory()
			j := twoRuns(m)
			m.fail = failAt(op, n)
			res, err := Run(context.Background(), j, Config{}, m.env())
			if m.open != 0 {
				t.Fatalf("%s %d: %d iterators left open", op, n, m.open)
			}
			if err == nil {
				if m.synced != len(m.levels) {
					t.Errorf("%d of %d outputs synced", m.synced, len(m.levels))
				}
				break
			}
			failures++
			if !errors.Is(err, errInjected) || len(res.Added) > 0 {
				t.Fatalf("%s %d: %v, %d tables", op, n, err, len(res.Added))
			}
			if len(m.tables) != 2 || m.aborted != len(m.levels) {
				t.Fatalf("%s %d: %d of %d outputs aborted", op, n, m.aborted, len(m.levels))
			}
		}
		if failures == 0 {
			t.Errorf("%s was never called", op)
		}
	}
}

func TestRunCancel(t *testing.T) {
	m := makeMemory()
	j := twoRuns(m)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, j, Config{}, m.env()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before the start: %v", err)
	}
	// In the middle: enough input for the loop to look again.
	m = makeMemory()
	var big []entry
	for n := range 100 {
		k := sstable.MakeKey(fmt.Appendf(nil, "k%03d", n), 1, sstable.KindPut)
		big = append(big, entry{k, make([]byte, 8<<10)})
	}
	l := Levels{5: {m.table(big)}}
	j = jobOf(&l, Config{}.WithDefaults(), 5, 5, 6, l[5], nil)
	ctx, cancel = context.WithCancel(context.Background())
	adds := 0
	m.fail = func(op string) error {
		if op == "add" {
			if adds++; adds == 20 {
				cancel()
			}
		}
		return nil
	}
	if _, err := Run(ctx, j, Config{}, m.env()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled under way: %v", err)
	}
	if adds > 40 || m.aborted != 1 || m.open != 0 {
		t.Errorf("stopped after %d entries, %d aborted, %d open", adds, m.aborted, m.open)
	}
}

// TestRunCounts: an input that does not hold what its description says is noticed.
func TestRunCounts(t *testing.T) {
	m := makeMemory()
	j := twoRuns(m)
	num := j.Inputs[1][0].Num
	m.tables[num] = m.tables[num][:150]
	_, err := Run(context.Background(), j, Config{}, m.env())
	var count *CountError
	if !errors.As(err, &count) || count.Want != 400 || count.Got != 350 {
		t.Errorf("short input: %v", err)
	}
	if len(m.tables) != 2 {
		t.Error("outputs left behind")
	}
}

// lyingOutput describes itself wrongly when it is finished.
type lyingOutput struct {
	Output
	lie func(*sstable.Meta)
}

func (o lyingOutput) Finish() (sstable.Meta, error) {
	m, err := o.Output.Finish()
	o.lie(&m)
	return m, err
}

// TestRunNoticesOutputsThatLie: a finished table is held against what was written to it: count,
// first key, and order among the outputs.
func TestRunNoticesOutputsThatLie(t *testing.T) {
	for name, lie := range map[string]func(*sstable.Meta){
		"an entry is lost":     func(m *sstable.Meta) { m.Entries-- },
		"an entry is invented": func(m *sstable.Meta) { m.Entries++ },
		"another first key":    func(m *sstable.Meta) { m.Smallest.User = []byte("a") },
		"ends behind the next": func(m *sstable.Meta) { m.Largest.User = []byte("z") },
	} {
		m := makeMemory()
		j := twoRuns(m)
		env := m.env()
		env.Create = func(level int) (Output, error) {
			out, err := m.create(level)
			if len(m.levels) == 1 { // the first of several
				out = lyingOutput{out, lie}
			}
			return out, err
		}
		if res, err := Run(context.Background(), j, Config{}, env); err == nil {
			t.Errorf("%s: accepted as %d tables", name, len(res.Added))
		}
		if len(m.tables) != 2 {
			t.Errorf("%s: outputs left behind", name)
		}
	}
}

// TestRunMove: a move does no work.
func TestRunMove(t *testing.T) {
	m := makeMemory()
	j := twoRuns(m)
	j.Inputs[1], j.Move = nil, true
	res, err := Run(context.Background(), j, Config{}, m.env())
	if err != nil || len(res.Added) != 1 || res.Added[0].Num != j.Inputs[0][0].Num || m.opened > 0 {
		t.Errorf("move: %+v, %v, %d opened", res, err, m.opened)
	}
}

// TestRunBounded: outputs end near TableBytes, and where tables of the next level end.
func TestRunBounded(t *testing.T) {
	m := makeMemory()
	list := func(from, to, step int, s sstable.Seq) []entry {
		var out []entry
		for n := from; n < to; n += step {
			k := sstable.MakeKey(fmt.Appendf(nil, "k%04d", n), s, sstable.KindPut)
			out = append(out, entry{k, []byte("0123456789")})
		}
		return out
	}
	l := Levels{4: {m.table(list(0, 400, 2, 3))}, 5: {m.table(list(1, 400, 2, 2))}}
	for n := 0; n < 400; n += 35 {
		l[6] = append(l[6], m.table(list(n, min(n+35, 400), 3, 1)))
	}
	j := jobOf(&l, Config{TableBytes: 1 << 10}.WithDefaults(), 5, 4, 5, l[4], l[5])
	res, err := Run(context.Background(), j, Config{}, m.env())
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range res.Added[:len(res.Added)-1] {
		if a.Bytes < 512 || a.Bytes > 1<<10+64 {
			t.Errorf("output %d has %d bytes", i, a.Bytes)
		}
		if n := len(l.Overlaps(6, a.Smallest.User, a.Largest.User)); n > 2 {
			t.Errorf("output %d overlaps %d tables", i, n)
		}
	}
}

// TestCutOverlap: a table that spans much of the next level ends early, however small it is, and
// what was passed before it began does not count.
func TestCutOverlap(t *testing.T) {
	var next []*sstable.Meta
	for n := range byte(40) {
		next = append(next, rangeTable(uint64(n)+1, 2*n, 2*n))
		next[n].Bytes = 100
	}
	c := cutter{tableBytes: 200, next: next}
	c.opened([]byte{21})
	for at := byte(21); at < 80; at++ {
		want := at == 21+2*20
		if got := c.before([]byte{at}, 1); got != want {
			t.Fatalf("before key %d: %v with %d bytes passed", at, got, c.overlap)
		}
		if want {
			return
		}
	}
}

// TestManualEnds: tables flushed after a manual compaction began are not waited for.
func TestManualEnds(t *testing.T) {
	o := makeModel(t, 1, Config{})
	o.flush()
	m := NewManual(&o.levels, nil, nil)
	for n := range 10 {
		j, step := m.Next(&o.levels, o.config, nil)
		if step == Done {
			if n == 0 || len(o.levels[0]) == 0 {
				t.Errorf("done after %d jobs with %d tables in level 0", n, len(o.levels[0]))
			}
			return
		}
		o.compact(j)
		o.flush()
	}
	t.Error("does not end while flushes come")
}

// counter is an output that costs nothing.
type counter struct {
	first, last   sstable.Key
	bytes, number uint64
	user          [32]byte
}

func (c *counter) Add(k sstable.Key, value []byte) error {
	if c.number == 0 {
		c.first = k.Clone()
	}
	n := copy(c.user[:], k.User)
	c.last = sstable.Key{User: c.user[:n], Trailer: k.Trailer}
	c.number++
	c.bytes += uint64(len(k.User) + len(value))
	return nil
}

func (c *counter) EstimatedBytes() uint64 { return c.bytes }
func (c *counter) Abort()                 {}
func (c *counter) Sync() error            { return nil }
func (c *counter) Finish() (sstable.Meta, error) {
	return sstable.Meta{Smallest: c.first, Largest: c.last.Clone(), Entries: c.number,
		Bytes: c.bytes}, nil
}

// benchJob merges a table into ten, 16-byte keys and 100-byte values.
func benchJob(m *memory, n int) Job {
	var upper, lower []entry
	value := make([]byte, 100)
	for i := range n {
		k := sstable.MakeKey(fmt.Appendf(nil, "%016d", i*7919), 1, sstable.KindPut)
		if i%11 == 0 {
			k.Trailer = uint64(sstable.MakeKey(nil, 2, sstable.KindPut).Trailer)
			upper = append(upper, entry{k, value})
		} else {
			lower = append(lower, entry{k, value})
		}
	}
	l := Levels{5: {m.table(upper)}}
	for part := range 10 {
		l[6] = append(l[6], m.table(lower[part*len(lower)/10:(part+1)*len(lower)/10]))
	}
	return jobOf(&l, Config{}.WithDefaults(), 5, 5, 6, l[5], l[6])
}

func BenchmarkRun(b *testing.B) {
	const n = 200_000
	m := makeMemory()
	j := benchJob(m, n)
	env := m.env(1)
	env.Create = func(int) (Output, error) { return new(counter), nil }
	b.ReportAllocs()
	b.SetBytes(n * 116)
	for b.Loop() {
		if _, err := Run(context.Background(), j, Config{}, env); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/entry")
}

// TestRunAllocs: the loop over entries allocates nothing, so a job's allocations do not depend on
// how many there are.
func TestRunAllocs(t *testing.T) {
	allocs := func(n int) float64 {
		m := makeMemory()
		j := benchJob(m, n)
		j.TableBytes = 1 << 40
		env := m.env(1)
		env.Create = func(int) (Output, error) { return new(counter), nil }
		return testing.AllocsPerRun(3, func() {
			if _, err := Run(context.Background(), j, Config{}, env); err != nil {
				t.Fatal(err)
			}
		})
	}
	if few, many := allocs(1000), allocs(20_000); many > few+5 {
		t.Errorf("%v allocations for 1000 entries, %v for 20000", few, many)
	}
}

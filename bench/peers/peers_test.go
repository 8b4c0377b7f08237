package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"kvd/bench"
)

func TestMain(m *testing.M) {
	if childMain() {
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

func tiny(t *testing.T, engine string) config {
	return config{
		Engine: engine, Round: 1, Keys: 2000, ValueBytes: 100,
		CacheBytes: 8 << 20, MemtableBytes: 1 << 20,
		Cell: 10 * time.Millisecond, Cap: 200 * time.Millisecond, Dir: t.TempDir(), Seed: 7,
		Sustain: 20 * time.Millisecond, Pace: 20_000,
	}
}

// TestEngines runs every row of every engine: each read of a session checks what it got, so a
// wrong value fails it.
func TestEngines(t *testing.T) {
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			c := tiny(t, e.name)
			if e.name == "rocksdb" {
				if _, err := exec.LookPath(dbBench); err != nil {
					t.Skip("db_bench is not installed")
				}
				if testing.Short() {
					t.Skip("db_bench knows whole seconds only")
				}
				c.Rows = selection{rowFillSeq, rowSyncOne, rowLargeRead16, rowLargeOverwrite}
			}
			runRows(t, e, c)
			sustain := c.Sustain
			if e.name == "rocksdb" {
				sustain = 4 * time.Second
			}
			c.Large, c.Cap, c.Sustain = true, time.Minute, sustain
			cells := runRows(t, e, c)
			for _, what := range []string{"load", "overwrite"} {
				if cells[what+spaceSuffix] <= 0 {
					t.Errorf("%s: %v", what, cells)
				}
			}
		})
	}
}

// TestSustained runs the rows that take part on request only.
func TestSustained(t *testing.T) {
	e := kvdEngine()
	c := tiny(t, e.name)
	c.Rows = selection{rowSustained}
	cells := runRows(t, e, c)
	if cells[rowSustained+longestSuffix] < cells[rowSustained+tailSuffix] {
		t.Errorf("the longest write is shorter than p99.9: %v", cells)
	}
}

func TestPacer(t *testing.T) {
	p := pacer{time.Now(), 16_000}
	for done := range uint64(801) {
		p.wait(done)
	}
	if took := time.Since(p.start); took < 49*time.Millisecond {
		t.Errorf("800 writes at 16000 per second took %v", took)
	}
	pacer{time.Now(), 0}.wait(1 << 40) // full speed never waits
}

// TestScale compares trees of two sizes.
func TestScale(t *testing.T) {
	r := report{Engines: []string{"kvd", "bbolt"}, Sizes: []int{1000, 3000}}
	r.Config.Scale = true
	for _, name := range r.Engines {
		for _, n := range r.Sizes {
			e, err := engineNamed(name)
			if err != nil {
				t.Fatal(err)
			}
			c := tiny(t, name)
			c.Keys, c.Scale = n, true
			r.Measured = append(r.Measured,
				measured{Engine: name, Keys: n, Cells: runRows(t, e, c)})
		}
	}
	text := r.markdownText()
	for _, part := range []string{
		"| keys | kvd Get ns | kvd Put ns | bbolt Get ns |", "\n| 3000 |", "\nbbolt 3000 #",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in\n%s", part, text)
		}
	}
}

// TestUsage makes the collector work.
func TestUsage(t *testing.T) {
	live := make([]*[64]byte, 200_000)
	for i := range live {
		live[i] = new([64]byte)
	}
	before := usedNow()
	for range 3 {
		runtime.GC()
	}
	used := usedNow().minus(before)
	if used.cpu <= 0 || used.gc <= 0 {
		t.Errorf("used %+v", used)
	}
	runtime.KeepAlive(live)
}

func TestWindows(t *testing.T) {
	const report = "secs_elapsed,interval_qps\n1,10\n2,20\n3,30\n4,50\n5,9\n"
	got := windowsOf(report, 2*time.Second)
	if !slices.Equal(got, []float64{15, 40}) {
		t.Errorf("got %v", got)
	}
}

func runRows(t *testing.T, e *engine, c config) map[string]float64 {
	t.Helper()
	cells := runInside(t, c)
	for _, line := range c.rows() {
		_, has := cells[line.name]
		want := c.Rows.has(line.name) && e.row(line.name)
		if want && !has && !mayLack(e, line) {
			t.Errorf("no figure for %s", line.name)
		}
	}
	left, err := os.ReadDir(c.Dir)
	if err != nil || len(left) > 0 {
		t.Errorf("%d entries left behind, %v", len(left), err)
	}
	return cells
}

// TestMemoryLimit starts a program that says which group it is in.
func TestMemoryLimit(t *testing.T) {
	g, err := newMemoryGroup(64 << 20)
	if err != nil {
		t.Skip(err)
	}
	out, err := g.command(t.Context(), "/usr/bin/env").CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if got := strings.TrimSpace(contents(filepath.Join(g.Dir, g.Knob))); got != "67108864" {
		t.Errorf("limit %q", got)
	}
	plain := errors.New("plain")
	if g.explain(plain) != plain {
		t.Error("a killed process where none was")
	}
	if err := g.remove(); err != nil {
		t.Error(err)
	}
}

// mayLack tells the rows that an engine's class or its slowness leaves empty.
func mayLack(e *engine, line row) bool {
	_, hasSystem := e.acks[system]
	return line.name == rowFillSystem && !hasSystem || line.name == rowFillQuiet
}

func runInside(t *testing.T, c config) map[string]float64 {
	t.Helper()
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := runChild(encoded, &out); err != nil {
		t.Fatal(err)
	}
	m := newMeasured(c)
	if err := m.collect(&out, func(record) {}); err != nil {
		t.Fatal(err)
	}
	for name, v := range m.Cells {
		if v < 0 {
			t.Errorf("%s = %v", name, v)
		}
	}
	timed := m.Cells[rowReadLeft] > 0 && c.Engine != "rocksdb"
	if timed && (m.CPU[rowReadLeft] <= 0 || m.CPU[rowFillQuiet] < 0) {
		t.Errorf("processor time %v", m.CPU)
	}
	for name, share := range m.GC {
		if share < 0 || m.CPU[name] == 0 {
			t.Errorf("%s: collector took %v %%", name, share)
		}
	}
	return m.Cells
}

// lying breaks a store in one way.
type lying struct {
	store
	how string
}

func (l lying) Get(dst, key []byte) ([]byte, bool, error) {
	v, found, err := l.store.Get(dst, key)
	switch {
	case l.how == "lost":
		return v, false, err
	case l.how == "invented":
		return v, true, err
	case l.how == "damaged" && found:
		v = bytes.Clone(v)
		v[len(v)-1]++
	}
	return v, found, err
}

func (l lying) Scan(start []byte, n int, fn func(k, v []byte) bool) (int, error) {
	if l.how == "short" {
		n = max(n-1, 1)
	}
	return l.store.Scan(start, n, fn)
}

// TestLiesAreSeen makes sure that the checks can fail.
func TestLiesAreSeen(t *testing.T) {
	for _, how := range []string{"lost", "invented", "damaged", "short"} {
		t.Run(how, func(t *testing.T) {
			s, err := newSession(tiny(t, "bbolt"))
			if err != nil {
				t.Fatal(err)
			}
			inner, err := openBbolt(s.Dir, s.base)
			if err != nil {
				t.Fatal(err)
			}
			defer inner.Close()
			if err := s.rest(inner, s.shuffled(), 1, 0); err != nil {
				t.Fatal(err)
			}
			if err := s.verify(inner, s.shuffled(), s.keys, 1, 1); err != nil {
				t.Fatalf("honest store: %v", err)
			}
			liar := lying{inner, how}
			err = s.verify(liar, s.shuffled(), s.keys, 1, 1)
			if how == "short" {
				_, err = s.readFor(liar, 1, time.Millisecond, 1, 1, false, seekTen)
			}
			if err == nil {
				t.Error("went unnoticed")
			}
			if err := s.verify(inner, s.shuffled(), s.keys, 2, 3); err == nil {
				t.Error("a stale version went unnoticed")
			}
		})
	}
}

func TestParseDBBench(t *testing.T) {
	const out = `WARNING: Assertions are enabled; benchmarks unnecessarily slow
DB path: [/tmp/x]
filluniquerandom :       7.213 micros/op 138625 ops/sec 1.443 seconds 200000 operations;   15.3 MB/s
waitforcompaction(/tmp/x): started
readrandom   :       3.823 micros/op 522559 ops/sec 1.005 seconds 524998 operations; (9 of 10 found)
Min: 2  Median: 2.6032  Max: 153496
Percentiles: P50: 1.62 P75: 2.40 P99: 6.26 P99.9: 12.75 P99.99: 30.11
(   33000,   50000 ]        2   0.001%  99.998%
(   50000,   75000 ]        2   0.001%  99.998% #
(   75000,  110000 ]        4   0.001% 100.000%
Cumulative writes: 1234K writes, 1234K keys, 1234K commit groups
`
	cells, warnings := parseDBBench(out)
	if len(cells) != 2 || len(warnings) != 1 {
		t.Fatalf("%d cells, %d warnings", len(cells), len(warnings))
	}
	for i, want := range []float64{138_600.1, 522_386.1} {
		if got := cells[i].rate; math.Abs(got-want) > 0.1 {
			t.Errorf("rate %v, not %v", got, want)
		}
	}
	want := dbBenchCell{
		name: "readrandom", rate: cells[1].rate, seconds: 1.005, found: 9, looked: 10,
		percentile: 6.26, tail: 12.75, longest: 153_496, slow: 6, writes: 1_234_000,
	}
	if cells[1] != want {
		t.Errorf("got %+v", cells[1])
	}
	if cells[0].check() != nil || cells[1].check() == nil {
		t.Error("nine of ten found must be an error, no count none")
	}
}

func TestReport(t *testing.T) {
	r := report{Rounds: 2, Engines: []string{"kvd", "pebble", "badger"}}
	add := func(engine string, round int, fill, tail float64) {
		r.Measured = append(r.Measured, measured{Engine: engine, Round: round,
			Cells: map[string]float64{rowFillSeq: fill, rowBesideTail: tail}})
	}
	add("kvd", 1, 3_000_000, 40)
	add("kvd", 2, 1_000_000, 60)
	add("pebble", 1, 1_000_000, 100)
	add("badger", 1, 4_000_000, 25)
	got := map[string]ratios{}
	for _, line := range r.measuredRows() {
		got[line.name] = r.ratiosOf(line)
	}
	want := map[string]ratios{
		rowFillSeq:    {best: 0.5, rival: 2, bestName: "badger"},
		rowBesideTail: {best: 0.5, rival: 2, bestName: "badger"},
	}
	if len(got) != 2 || got[rowFillSeq] != want[rowFillSeq] ||
		got[rowBesideTail] != want[rowBesideTail] {
		t.Errorf("got %+v", got)
	}
	text := r.text()
	for _, part := range []string{"badger*", "TRAILS", "50..150", "2000"} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in\n%s", part, text)
		}
	}
	if md := r.markdownText(); !strings.Contains(md, "| fillseq, 1 writer | 2000 | 1000 |") {
		t.Errorf("markdown:\n%s", md)
	}
}

func TestParse(t *testing.T) {
	p, err := parse([]string{"--quick", "--rows", "sync,fillseq", "--engines", "kvd,pebble"})
	if err != nil {
		t.Fatal(err)
	}
	if p.Keys != 100_000 || !p.Rows.has(rowSyncMany) || p.Rows.has(rowScan) || len(p.engines) != 2 {
		t.Errorf("got %+v", p)
	}
	for _, args := range [][]string{
		{"--keys", "10"}, {"--value", "5"}, {"--rounds", "0"}, {"--engines", "nosuch"},
		{"--rows", "nosuch"}, {"--cell", "0s"}, {"--cache", "0"}, {"extra"},
		{"--pretouch", "-1"}, {"--limit", "-1"}, {"--sustain", "0s"}, {"--pace", "0"},
		{"--scale", "10"}, {"--scale", "many"}, {"--large", "--scale", "1000"},
		{"--large", "--rows", "fillseq"},
	} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}

// TestSettle waits for a writer to the directory to end.
func TestSettle(t *testing.T) {
	dir := t.TempDir()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 10 {
			name := filepath.Join(dir, string(rune('a'+i)))
			if err := os.WriteFile(name, []byte{1}, 0o644); err != nil {
				t.Error(err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	_, ok := settle(dir, quietMax)
	select {
	case <-done:
	default:
		t.Error("settled while the directory changed")
	}
	if !ok {
		t.Error("not quiet at the end")
	}
}

func TestOrders(t *testing.T) {
	c := tiny(t, "kvd")
	d, err := newData(c)
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]order{
		"ascending": d.ascending(), "shuffled": d.shuffled(), "overwriting": d.overwriting(),
	} {
		seen := map[bench.Number]bool{}
		for i := range d.keys {
			seen[o(i)] = true
		}
		if len(seen) != c.Keys {
			t.Errorf("%s: %d of %d keys", name, len(seen), c.Keys)
		}
	}
}

// TestHiccups: a write is blamed for what no pause of a processor explains.
func TestHiccups(t *testing.T) {
	var h hiccups
	cells := map[string]float64{}
	hear := func(r record) {
		t.Helper()
		if !h.hear(r, cells) {
			t.Errorf("%q is not for the watch", r.Name)
		}
	}
	hear(record{Name: watchBegins})
	hear(record{Name: watchSlow, Value: 100, Took: 0.090})  // 50 to 80 ms of it paused: 60 are left
	hear(record{Name: watchSlow, Value: 200, Took: 0.090})  // paused on both processors, 50 in all
	hear(record{Name: watchSlow, Value: 300, Took: 0.090})  // paused throughout
	hear(record{Name: watchSlow, Value: 400, Took: 0.0501}) // never
	h.mu.Lock()
	h.pauses = []span{{299, 301}, {200.020, 200.060}, {100.050, 100.080}, {200.010, 200.050}}
	h.mu.Unlock()
	hear(record{Name: watchEnds})
	if cells[factBlamed] != 2 || cells[factPause] < 1999 {
		t.Errorf("%v", cells)
	}
	if h.hear(record{Name: factRSS}, cells) {
		t.Error("a fact was taken for a word to the watch")
	}
}

// TestHiccupsAreFound: whoever sleeps for a millisecond oversleeps a little, and it is noticed.
func TestHiccupsAreFound(t *testing.T) {
	var h hiccups
	began := seconds(time.Now())
	h.start(0)
	time.Sleep(50 * time.Millisecond)
	h.stop()
	ended := seconds(time.Now())
	if len(h.pauses) == 0 {
		t.Error("nobody has overslept")
	}
	for _, p := range h.pauses {
		if p.from < began || p.to > ended || p.seconds() <= 0 {
			t.Errorf("from %f to %f a pause from %f to %f", began, ended, p.from, p.to)
		}
	}
}

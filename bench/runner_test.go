package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// loaded is a fake that holds the given number of keys.
func loaded(t testing.TB, keys uint64, ledger *Ledger) *fake {
	t.Helper()
	f := newFake()
	s := Spec{Workload: "fillseq", Keys: keys, Ledger: ledger}
	if _, err := Run(t.Context(), f, s); err != nil {
		t.Fatal(err)
	}
	return f
}

// One stall of a second among ten: a tenth of the operations were due during it, so from p90 on
// the response times must show it, though two workers could start but two operations.
func TestOpenLoopSeesTheStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := loaded(t, 100, nil)
		begin := time.Now()
		f.before = func([]byte) error {
			if at := time.Since(begin); at >= 4*time.Second && at < 5*time.Second {
				time.Sleep(5*time.Second - at)
			}
			time.Sleep(time.Millisecond)
			return nil
		}
		r, err := run(t.Context(), f, Spec{
			Workload: "readrandom", Keys: 100, Rate: 100, Workers: 2, Duration: 10 * time.Second,
		}, time.Sleep)
		if err != nil {
			t.Fatal(err)
		}
		o := r.Operation(Read)
		if o.Ops != 1000 || r.Unstarted != 0 {
			t.Errorf("%d operations, %d unstarted; want 1000, 0", o.Ops, r.Unstarted)
		}
		if o.P50Micros < 990 || o.P50Micros > 1010 {
			t.Errorf("p50 %v, want 1 ms", duration(o.P50Micros))
		}
		if o.P99Micros < 850e3 || o.MaxMicros < 1000e3 || o.MaxMicros > 1002e3 {
			t.Errorf("p99 %v, max %v, want nearly and just above 1 s",
				duration(o.P99Micros), duration(o.MaxMicros))
		}
		if v := r.Series[4]; v.OpsPerSecond != 0 || v.MaxMicros != 0 {
			t.Errorf("the second of the stall: %+v", v)
		}
		if v := r.Series[5]; v.OpsPerSecond < 190 || v.MaxMicros < 1000e3 {
			t.Errorf("the second after the stall: %+v", v)
		}
	})
}

// The same stall in a closed loop delays one operation per worker: its service time.
func TestClosedLoopSeesServiceTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := loaded(t, 100, nil)
		var n atomic.Int64
		f.before = func([]byte) error {
			if n.Add(1) == 500 {
				time.Sleep(time.Second)
			}
			time.Sleep(10 * time.Millisecond)
			return nil
		}
		r, err := run(t.Context(), f, Spec{
			Workload: "readrandom", Keys: 100, Workers: 2, Ops: 1001,
		}, time.Sleep)
		if err != nil {
			t.Fatal(err)
		}
		o := r.Operation(Read)
		if o.Ops != 1001 || o.P99Micros > 10_100 || o.MaxMicros != 1010e3 {
			t.Errorf("%d operations, p99 %v, max %v", o.Ops, duration(o.P99Micros),
				duration(o.MaxMicros))
		}
		if !strings.Contains(r.Loop(), "service time") {
			t.Errorf("labelled %q", r.Loop())
		}
	})
}

// A store slower than the rate is found out: the run ends on time and says what it left.
func TestOpenLoopFallsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := loaded(t, 10, nil)
		f.before = func([]byte) error { time.Sleep(20 * time.Millisecond); return nil }
		r, err := run(t.Context(), f, Spec{
			Workload: "readrandom", Keys: 10, Rate: 100, Duration: 10 * time.Second,
		}, time.Sleep)
		if err != nil {
			t.Fatal(err)
		}
		if r.Unstarted < 490 || r.Unstarted > 500 || r.Ops() < 500 || r.Ops() > 505 {
			t.Errorf("%d done, %d unstarted; want 500 each", r.Ops(), r.Unstarted)
		}
		if !strings.Contains(strings.Join(r.Warnings, "\n"), "fell behind") {
			t.Errorf("warnings %q", r.Warnings)
		}
	})
}

func TestWarmupIsNotMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := loaded(t, 10, nil)
		begin := time.Now()
		f.before = func([]byte) error {
			if time.Since(begin) < 3*time.Second {
				time.Sleep(time.Second)
			}
			time.Sleep(time.Millisecond)
			return nil
		}
		var seen []Interval
		r, err := run(t.Context(), f, Spec{
			Workload: "readrandom", Keys: 10, Warmup: 3 * time.Second, Duration: 3 * time.Second,
			Progress: func(v Interval) { seen = append(seen, v) },
		}, time.Sleep)
		if err != nil {
			t.Fatal(err)
		}
		if o := r.Operation(Read); o.MaxMicros > 1001 || o.Ops < 2990 || o.Ops > 3001 {
			t.Errorf("%d operations, max %v", o.Ops, duration(o.MaxMicros))
		}
		if len(seen) == 0 {
			t.Error("no progress")
		}
	})
}

// No insert chosen in the warm-up is left undone: the frontier would never move again.
func TestFrontierSurvivesTheWarmup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := loaded(t, 10, nil)
		f.before = func([]byte) error { time.Sleep(time.Millisecond); return nil }
		s, load, err := Spec{Workload: "ycsb-d", Keys: 10, Workers: 8, Warmup: time.Second,
			Duration: time.Second}.resolve()
		if err != nil {
			t.Fatal(err)
		}
		r, err := newRunner(f, s, load, time.Sleep)
		if err != nil {
			t.Fatal(err)
		}
		r.phase(t.Context(), s.Warmup, 0)
		r.phase(t.Context(), s.Duration, 0)
		if n := len(r.front.under); n != 0 || r.front.known.Load() != r.front.taken {
			t.Errorf("%d inserts under way after the run, known %d of %d", n,
				r.front.known.Load(), r.front.taken)
		}
	})
}

func TestErrorsAreCountedNotTimed(t *testing.T) {
	f := loaded(t, 100, nil)
	var n atomic.Int64
	f.before = func([]byte) error {
		if n.Add(1)%10 == 0 {
			return errors.New("fake: tenth one")
		}
		return nil
	}
	r, err := Run(t.Context(), f, Spec{Workload: "readrandom", Keys: 100, Ops: 1000})
	if err != nil {
		t.Fatal(err)
	}
	o := r.Operation(Read)
	if o.Ops != 900 || o.Errors != 100 || r.FirstError != "fake: tenth one" {
		t.Errorf("%d ok, %d failed, first %q", o.Ops, o.Errors, r.FirstError)
	}
}

func TestGivesUpOnADeadStore(t *testing.T) {
	f := loaded(t, 100, nil)
	dead := errors.New("fake: dead")
	f.before = func([]byte) error { return dead }
	r, err := Run(t.Context(), f, Spec{Workload: "ycsb-a", Keys: 100, Ops: 1e9, Workers: 3})
	if !errors.Is(err, dead) || r == nil || r.Errors() < errorsInARow {
		t.Errorf("%v, %+v", err, r)
	}
}

func TestCancel(t *testing.T) {
	for _, rate := range []float64{0, 0.01, 1000} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			f := loaded(t, 100, nil)
			f.before = func([]byte) error { time.Sleep(time.Millisecond); return nil }
			begin := time.Now()
			r, err := run(ctx, f, Spec{Workload: "readwhilewriting", Keys: 100, Rate: rate,
				Duration: time.Hour}, time.Sleep)
			if !errors.Is(err, context.DeadlineExceeded) || r == nil || r.Ops() == 0 {
				t.Errorf("rate %v: %v", rate, err)
			}
			if took := time.Since(begin); took > 1600*time.Millisecond {
				t.Errorf("rate %v: took %v", rate, took)
			}
		})
	}
}

func TestEveryWorkloadVerifies(t *testing.T) {
	const keys = 500
	ledger := NewLedger(keys, 7)
	f := loaded(t, keys, ledger)
	for _, w := range Workloads() {
		for _, rate := range []float64{0, 1e6} {
			if rate > 0 && w.ScanMax < 0 {
				continue
			}
			ops := uint64(3000)
			if w.ScanMax < 0 {
				ops = 20
			}
			r, err := Run(t.Context(), f, Spec{
				Workload: w.Name, Keys: keys, Ops: ops, Workers: 4, Rate: rate, Ledger: ledger,
			})
			if err != nil {
				t.Fatalf("%s: %v", w.Name, err)
			}
			if r.Errors() != 0 || r.Ops() == 0 || r.Offence != "" {
				t.Errorf("%s: %+v", w.Name, r)
			}
		}
	}
	if f.settled.Load() == 0 || f.pings.Load() != 6000 {
		t.Errorf("%d settled, %d pings", f.settled.Load(), f.pings.Load())
	}
}

func TestVerifyFindsEachFault(t *testing.T) {
	const keys = 50
	space, _ := NewKeyspace(keys, 16, 0)
	victim := space.AppendKey(nil, space.Loaded(17))
	other := NewValues(100, 0).Append(nil, space.Loaded(18), 1)
	old := NewValues(100, 0).Append(nil, space.Loaded(17), 1<<32|1)
	future := NewValues(100, 0).Append(nil, space.Loaded(17), 1<<32|1000)
	swap := func(with []byte) func(key, value []byte) []byte {
		return func(key, value []byte) []byte {
			if string(key) == string(victim) {
				return with
			}
			return value
		}
	}
	for _, c := range []struct {
		load, want string
		spoil      func(key, value []byte) []byte
		drop, skip bool
	}{
		{load: "readrandom", want: "damaged", spoil: swap(append([]byte("x"), other[1:]...))},
		{load: "readrandom", want: "another key", spoil: swap(other)},
		{load: "readrandom", want: "stale", spoil: swap(old)},
		{load: "readrandom", want: "invented", spoil: swap(future)},
		{load: "readrandom", want: "lost", drop: true},
		{load: "ycsb-f", want: "lost", drop: true},
		{load: "scan", want: "damaged", spoil: swap([]byte("short"))},
		{load: "fullscan", want: "skipped", skip: true},
		{load: "scan", want: "skipped", skip: true},
		{load: "readmissing", want: "invented"},
	} {
		ledger := NewLedger(keys, 1)
		f := loaded(t, keys, ledger)
		if _, err := Run(t.Context(), f, Spec{
			Workload: "fillseq", Keys: keys, Ledger: ledger, // version 2
		}); err != nil {
			t.Fatal(err)
		}
		f.spoil = c.spoil
		if c.drop {
			delete(f.pairs, string(victim))
		}
		if c.skip {
			f.skip = func(key []byte) bool { return string(key) == string(victim) }
		}
		if c.load == "readmissing" {
			n := space.Missing(3)
			_ = f.Put(space.AppendKey(nil, n), NewValues(100, 0).Append(nil, n, 1))
		}
		r, err := Run(t.Context(), f, Spec{
			Workload: c.load, Keys: keys, Ops: 100_000, Ledger: ledger,
		})
		var wrong *ValueError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), c.want) ||
			!strings.Contains(r.Offence, c.want) {
			t.Errorf("%s with %s: %v", c.load, c.want, err)
		}
	}
}

// Same seed, same store: same hash. Another answer: another hash.
func TestHashFollowsTheAnswers(t *testing.T) {
	hash := func(name string, spoil func(key, value []byte) []byte) string {
		f := loaded(t, 300, nil)
		f.spoil = spoil
		r, err := Run(t.Context(), f, Spec{Workload: name, Keys: 300, Ops: 2000, Seed: 5})
		if err != nil || r.Hash == "" {
			t.Fatalf("%s: hash %q, %v", name, r.Hash, err)
		}
		return r.Hash
	}
	for _, name := range []string{"readrandom", "scan", "ycsb-a", "ycsb-f"} {
		first := hash(name, nil)
		if again := hash(name, nil); again != first {
			t.Errorf("%s: hash %s, then %s", name, first, again)
		}
		other := hash(name, func(key, value []byte) []byte {
			if key[15] == '0' && key[14] == '7' {
				return value[:len(value)-8]
			}
			return value
		})
		if other == first {
			t.Errorf("%s: wrong answers give the same hash", name)
		}
	}
	r, _ := Run(t.Context(), loaded(t, 300, nil), Spec{Workload: "readrandom", Keys: 300, Ops: 10,
		Workers: 2})
	if r.Hash != "" {
		t.Error("hash of a run that two workers made")
	}
}

func TestSpecRefuses(t *testing.T) {
	for want, s := range map[string]Spec{
		"no workload":        {Workload: "readrandm", Keys: 1},
		"0 keys":             {Workload: "readrandom"},
		"value size":         {Workload: "readrandom", Keys: 1, ValueBytes: MaxValueBytes + 1},
		"workers":            {Workload: "readrandom", Keys: 1, Workers: -1},
		"rate":               {Workload: "readrandom", Keys: 1, Rate: -1},
		"read ratio":         {Workload: "mixed", Keys: 1, ReadRatio: 1.5},
		"cannot be verified": {Workload: "scan", Keys: 1, ValueBytes: 9, Ledger: NewLedger(1, 1)},
		"ledger of":          {Workload: "fillseq", Keys: 2, Ledger: NewLedger(1, 1)},
		"too few":            {Workload: "ycsb-a", Keys: 2, Workers: 3, Ledger: NewLedger(2, 1)},
		"negative":           {Workload: "ycsb-a", Keys: 2, Duration: -1},
	} {
		_, err := Run(t.Context(), newFake(), s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}

func TestSeriesStaysBounded(t *testing.T) {
	var r recorder
	r.reset()
	for s := range int64(5000) {
		r.merge([]sample{{end: s * 1e9, took: 1000 + s, kind: Read}})
	}
	total := uint64(0)
	for _, v := range r.series {
		total += v.ops
	}
	if len(r.series) > maxIntervals || total != 5000 || r.width != 8e9 {
		t.Errorf("%d intervals of %d ns with %d operations", len(r.series), r.width, total)
	}
}

// null is a store that does nothing: what is left is the runner.
type null struct{}

func (null) Put(_, _ []byte) error                                       { return nil }
func (null) Get(dst, _ []byte) ([]byte, bool, error)                     { return dst, true, nil }
func (null) Scan(_ []byte, _ int, _ func(_, _ []byte) bool) (int, error) { return 0, nil }
func (null) Settle() error                                               { return nil }
func (null) Close() error                                                { return nil }

func TestRunnerDoesNotAllocate(t *testing.T) {
	for _, name := range []string{"readrandom", "readzipfian", "overwrite", "ycsb-f"} {
		r, err := Run(t.Context(), null{}, Spec{Workload: name, Keys: 1000, Ops: 50_000})
		if err != nil {
			t.Fatal(err)
		}
		if r.AllocsPerOp > 0.01 {
			t.Errorf("%s: %.3f allocations per operation", name, r.AllocsPerOp)
		}
	}
}

func BenchmarkRunner(b *testing.B) {
	for _, name := range []string{"readrandom", "readzipfian", "overwrite"} {
		b.Run(name, func(b *testing.B) {
			_, err := Run(b.Context(), null{}, Spec{Workload: name, Keys: 1e6, Ops: uint64(b.N)})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
	b.Run("open", func(b *testing.B) {
		_, err := Run(b.Context(), null{}, Spec{
			Workload: "readrandom", Keys: 1e6, Ops: uint64(b.N), Rate: 1e9, Workers: 2,
		})
		if err != nil {
			b.Fatal(err)
		}
	})
}

func ExampleRun() {
	store := newFake()
	for _, name := range []string{"fillrandom", "readrandom"} {
		r, err := Run(context.Background(), store, Spec{Workload: name, Keys: 1000, Ops: 1000})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(r.Workload, r.Ops(), "operations,", r.Errors(), "errors, hash", r.Hash)
	}
	// Output:
	// fillrandom 1000 operations, 0 errors, hash ebdb3f5758c196d5
	// readrandom 1000 operations, 0 errors, hash d58f1ace54282e94
}

func TestLoaded(t *testing.T) {
	f := newFake()
	s := Spec{Workload: "readrandom", Keys: 1000}
	for _, c := range []struct {
		ops  uint64
		want bool
	}{{0, false}, {999, false}, {1000, true}} {
		if c.ops > 0 {
			fill := Spec{Workload: "fillseq", Keys: 1000, Ops: c.ops}
			if _, err := Run(t.Context(), f, fill); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := Loaded(f, s); got != c.want || err != nil {
			t.Errorf("after %d keys: %v, %v", c.ops, got, err)
		}
	}
}

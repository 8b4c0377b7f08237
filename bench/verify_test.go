package bench

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// scanner is a fake whose Scan is another one.
type scanner struct {
	*fake
	scan func(start []byte, n int, fn func(key, value []byte) bool) (int, error)
}

func (s scanner) Scan(start []byte, n int, fn func(key, value []byte) bool) (int, error) {
	return s.scan(start, n, fn)
}

// A scan that leaves out its end, or lies about how much it gave, is found out.
func TestVerifyFindsShortScans(t *testing.T) {
	const keys = 50
	ledger := NewLedger(keys, 1)
	f := loaded(t, keys, ledger)
	nothing := func([]byte, int, func(_, _ []byte) bool) (int, error) { return 0, nil }
	short := func(start []byte, n int, fn func(_, _ []byte) bool) (int, error) {
		if n < 0 {
			n = keys
		}
		return f.Scan(start, n-1, fn)
	}
	silent := func(_ []byte, n int, _ func(_, _ []byte) bool) (int, error) {
		return max(n, keys), nil
	}
	greedy := func(start []byte, _ int, fn func(_, _ []byte) bool) (int, error) {
		return f.Scan(start, -1, fn)
	}
	for _, c := range []struct {
		load, want string
		scan       func(start []byte, n int, fn func(key, value []byte) bool) (int, error)
	}{
		{"scan", "ended before it", nothing},
		{"fullscan", "ended before it", nothing},
		{"ycsb-e", "ended before it", nothing},
		{"scan", "ended before it", short},
		{"fullscan", "ended before it", short},
		{"scan", "miscounted", silent},
		{"fullscan", "miscounted", silent},
		{"scan", "miscounted", greedy},
	} {
		r, err := Run(t.Context(), scanner{f, c.scan}, Spec{
			Workload: c.load, Keys: keys, Ops: 100, Ledger: ledger,
		})
		var wrong *ValueError
		if !errors.As(err, &wrong) || !strings.Contains(r.Offence, c.want) {
			t.Errorf("%s, want %q: %v", c.load, c.want, err)
		}
	}
}

// A pass that the end of the run cuts short has lost nothing.
func TestVerifyForgivesTheScanThatWasCut(t *testing.T) {
	const keys = 50
	ledger := NewLedger(keys, 1)
	f := loaded(t, keys, ledger)
	s, load, err := Spec{Workload: "fullscan", Keys: keys, Ops: 1, Ledger: ledger}.resolve()
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRunner(f, s, load, time.Sleep)
	if err != nil {
		t.Fatal(err)
	}
	w := r.workers[0]
	w.prepare()
	r.stopped.Store(true)
	w.do()
	if err := w.verify(); err != nil || w.seen != 1 {
		t.Errorf("after %d pairs: %v", w.seen, err)
	}
}

func TestVerifyFindsStaleValuesInScans(t *testing.T) {
	const keys = 50
	space, _ := NewKeyspace(keys, 16, 0)
	victim := string(space.AppendKey(nil, space.Loaded(17)))
	old := NewValues(100, 0).Append(nil, space.Loaded(17), 1<<32|1)
	for _, name := range []string{"scan", "fullscan"} {
		ledger := NewLedger(keys, 1)
		f := loaded(t, keys, ledger)
		again := Spec{Workload: "fillseq", Keys: keys, Ledger: ledger} // version 2
		if _, err := Run(t.Context(), f, again); err != nil {
			t.Fatal(err)
		}
		f.spoil = func(key, value []byte) []byte {
			if string(key) == victim {
				return old
			}
			return value
		}
		_, err := Run(t.Context(), f, Spec{
			Workload: name, Keys: keys, Ops: 1000, Ledger: ledger,
		})
		if err == nil || !strings.Contains(err.Error(), "stale") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// checkPair takes the floors while a scan runs; see there.
func TestNoWorkloadScansWhatItUpdates(t *testing.T) {
	for _, w := range Workloads() {
		writes := w.Writer || w.Fill || w.Share[Update]+w.Share[ReadModifyWrite] > 0
		if w.Share[Scan] > 0 && writes {
			t.Errorf("%s scans and writes loaded keys", w.Name)
		}
	}
}

// What a process before this one loaded is lost when it is missing, whether or not that process
// verified, even when it ran within the same second.
func TestVerifyKnowsTheKeysOfEarlierSessions(t *testing.T) {
	const keys = 1000
	for _, before := range []*Ledger{nil, NewLedger(keys, 5)} {
		for _, name := range []string{"readrandom", "scan", "fullscan", "ycsb-f"} {
			f := loaded(t, keys, before)
			s := Spec{Workload: name, Keys: keys, Ops: 10_000, Ledger: NewLedger(keys, 5)}
			if name == "fullscan" {
				s.Ops = 10 // of all keys
			}
			if there, err := Loaded(f, s); !there || err != nil {
				t.Fatal(there, err)
			}
			if _, err := Run(t.Context(), f, s); err != nil {
				t.Errorf("%s on sound data: %v", name, err)
			}
			s.Ledger = NewLedger(keys, 6)
			if there, err := Loaded(f, s); !there || err != nil {
				t.Fatal(there, err)
			}
			clear(f.pairs)
			f.order = nil
			r, err := Run(t.Context(), f, s)
			if err == nil || !strings.Contains(r.Offence, "lost") {
				t.Errorf("%s with every key lost: %v", name, err)
			}
		}
	}
}

// Without Loaded nothing is known about the keys: they may be missing.
func TestVerifyExpectsNothingUnasked(t *testing.T) {
	for _, name := range []string{"readrandom", "scan", "fullscan"} {
		s := Spec{Workload: name, Keys: 100, Ops: 100, Ledger: NewLedger(100, 1)}
		if _, err := Run(t.Context(), newFake(), s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the open loop did not start in the warm-up is no part of the result.
func TestWarmupThatFallsBehindIsNotMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := loaded(t, 10, nil)
		begin := time.Now()
		f.before = func([]byte) error {
			if time.Since(begin) < time.Second {
				time.Sleep(20 * time.Millisecond)
			}
			return nil
		}
		r, err := run(t.Context(), f, Spec{Workload: "readrandom", Keys: 10, Rate: 100,
			Warmup: time.Second, Duration: time.Second}, time.Sleep)
		if err != nil {
			t.Fatal(err)
		}
		if r.Unstarted != 0 || r.Ops() != 100 {
			t.Errorf("%d operations, %d unstarted; warnings %q", r.Ops(), r.Unstarted, r.Warnings)
		}
	})
}

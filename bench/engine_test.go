package bench_test

import (
	"errors"
	"fmt"
	"testing"

	"kvd/bench"
	"kvd/lsm"
)

// engine is the storage engine as a target.
type engine struct {
	db         *lsm.DB
	durability lsm.Durability
}

func (e engine) Put(key, value []byte) error { return e.db.Put(key, value, e.durability) }

func (e engine) Get(dst, key []byte) ([]byte, bool, error) {
	v, err := e.db.GetTo(dst, key)
	if errors.Is(err, lsm.ErrNotFound) {
		return dst, false, nil
	}
	return v, err == nil, err
}

func (e engine) Scan(start []byte, n int, fn func(key, value []byte) bool) (int, error) {
	it := e.db.NewIter(lsm.IterOptions{})
	seen := 0
	for ok := seen != n && it.SeekGE(start); ok; ok = seen != n && it.Next() {
		seen++
		if !fn(it.Key(), it.Value()) {
			break
		}
	}
	return seen, errors.Join(it.Err(), it.Close())
}

func (e engine) Settle() error { return e.db.Flush() }
func (e engine) Close() error  { return e.db.Close() }

func openEngine(tb testing.TB, o lsm.Options) *lsm.DB {
	tb.Helper()
	db, err := lsm.Open(tb.TempDir(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return db
}

func mustRun(tb testing.TB, db *lsm.DB, d lsm.Durability, s bench.Spec) *bench.Result {
	tb.Helper()
	r, err := bench.Run(tb.Context(), engine{db, d}, s)
	if err != nil {
		tb.Fatal(err)
	}
	if n := r.Errors(); n > 0 {
		tb.Fatalf("%s: %d errors, the first: %s", s.Workload, n, r.FirstError)
	}
	return r
}

// The engine under every workload, every read checked, with memtables so small that flushes and
// compactions run all the while.
func TestEngineUnderEveryWorkload(t *testing.T) {
	const keys = 3000
	db := openEngine(t, lsm.Options{MemtableBytes: 64 << 10, CacheBytes: 1 << 20})
	ledger := bench.NewLedger(keys, 1)
	for _, w := range bench.Workloads() {
		if w.Share[bench.Ping] > 0 {
			continue
		}
		ops := uint64(3000)
		if w.ScanMax < 0 {
			ops = 4
		}
		mustRun(t, db, lsm.NoSync, bench.Spec{
			Workload: w.Name, Keys: keys, Ops: ops, Workers: 4, Ledger: ledger,
		})
	}
}

// One worker's reads follow from the seed alone, however the engine laid the data out.
func TestEngineAnswersDoNotDependOnOptions(t *testing.T) {
	var hashes []string
	for _, o := range []lsm.Options{
		{}, {MemtableBytes: 256 << 10, BlockBytes: 512, FilterBitsPerKey: -1, CacheBytes: -1},
	} {
		db := openEngine(t, o)
		hash := ""
		for _, name := range []string{"fillrandom", "ycsb-a", "scan", "readmissing", "ycsb-e"} {
			r := mustRun(t, db, lsm.NoSync, bench.Spec{
				Workload: name, Keys: 2000, Ops: 2000, Seed: 3,
			})
			hash += r.Hash + " "
		}
		hashes = append(hashes, hash)
	}
	if hashes[0] != hashes[1] {
		t.Errorf("hashes %s and %s", hashes[0], hashes[1])
	}
}

// BenchmarkEngine runs each workload on the operating system's file system. One operation is one
// operation of the workload; fills start from an empty database.
func BenchmarkEngine(b *testing.B) {
	const keys = 50_000
	write := func(name string, d lsm.Durability, workers int) {
		title := name
		if d == lsm.Sync {
			title = "sync"
		}
		b.Run(fmt.Sprintf("%s/writers=%d", title, workers), func(b *testing.B) {
			db := openEngine(b, lsm.Options{})
			space := max(keys, uint64(b.N))
			if name == "overwrite" {
				mustRun(b, db, d, bench.Spec{Workload: "fillrandom", Keys: space})
			}
			measured(b, db, d, bench.Spec{Workload: name, Keys: space, Workers: workers})
			if log := db.Metrics().Log; d == lsm.Sync && log.Syncs > 0 {
				b.ReportMetric(float64(log.Records)/float64(log.Syncs), "records/sync")
			}
		})
	}
	write("fillseq", lsm.NoSync, 1)
	write("fillrandom", lsm.NoSync, 1)
	write("fillrandom", lsm.NoSync, 16)
	write("overwrite", lsm.NoSync, 1)
	for _, workers := range []int{1, 16, 256} {
		write("fillrandom", lsm.Sync, workers)
	}

	db := openEngine(b, lsm.Options{})
	mustRun(b, db, lsm.NoSync, bench.Spec{Workload: "fillrandom", Keys: keys})
	for _, name := range []string{
		"readrandom", "readmissing", "readzipfian", "scan", "fullscan",
	} {
		b.Run(name, func(b *testing.B) {
			measured(b, db, lsm.NoSync, bench.Spec{Workload: name, Keys: keys})
		})
	}
}

// measured makes b.N operations and reports the tail beside the mean.
func measured(b *testing.B, db *lsm.DB, d lsm.Durability, s bench.Spec) {
	b.Helper()
	s.Ops = uint64(b.N)
	b.ResetTimer()
	r := mustRun(b, db, d, s)
	b.StopTimer()
	o := r.Operations[0]
	b.ReportMetric(1e9*r.Seconds/float64(o.Ops), "ns/op") // without set-up and settling
	b.ReportMetric(1e3*o.P99Micros, "p99-ns")
	b.ReportMetric(r.AllocsPerOp, "allocs/op")
	if o.Entries > 0 {
		b.ReportMetric(1e9*r.Seconds/float64(o.Entries), "ns/pair")
	}
}

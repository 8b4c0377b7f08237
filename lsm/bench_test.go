package lsm

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func benchKey(buf []byte, i uint64) []byte {
	buf = binary.BigEndian.AppendUint64(buf[:0], i*0x9e3779b97f4a7c15)
	return binary.BigEndian.AppendUint64(buf, i)
}

func benchValue() []byte {
	value := make([]byte, 100)
	for i := range value[:50] {
		value[i] = byte(rand.Uint32())
	}
	return value
}

func benchDB(b *testing.B) *DB {
	return mustOpen(b, b.TempDir(), Options{CacheBytes: 512 << 20})
}

func BenchmarkPutRandom(b *testing.B) {
	db := benchDB(b)
	value := benchValue()
	var key []byte
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		key = benchKey(key, uint64(i))
		if err := db.Put(key, value, NoSync); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	mustClose(b, db)
}

func BenchmarkPutSequential(b *testing.B) {
	db := benchDB(b)
	value := benchValue()
	key := make([]byte, 16)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		binary.BigEndian.PutUint64(key[8:], uint64(i))
		if err := db.Put(key, value, NoSync); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	mustClose(b, db)
}

func BenchmarkPutWriters(b *testing.B) {
	for _, c := range []struct {
		name    string
		writers int
		d       Durability
	}{
		{"NoSync/16", 16, NoSync}, {"Async/16", 16, Async},
		{"Sync/1", 1, Sync}, {"Sync/16", 16, Sync}, {"Sync/256", 256, Sync},
	} {
		b.Run(c.name, func(b *testing.B) {
			db := benchDB(b)
			value := benchValue()
			var next atomic.Uint64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range c.writers {
				wg.Go(func() {
					var key []byte
					for i := next.Add(1); i <= uint64(b.N); i = next.Add(1) {
						key = benchKey(key, i)
						if err := db.Put(key, value, c.d); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			m := db.Metrics()
			b.ReportMetric(float64(m.Log.Records)/float64(max(m.Log.Syncs, 1)), "records/sync")
			mustClose(b, db)
		})
	}
}

// spin keeps as many processors busy as there are until the end of the test.
func spin(t testing.TB) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for x := uint64(1); !stop.Load(); x *= 3 {
				spun.Store(x)
			}
		})
	}
	t.Cleanup(func() { stop.Store(true); wg.Wait() })
}

var spun atomic.Uint64 // so that the loop is not optimised away

// putBeside writes n pairs with as many writers, beside goroutines that never wait.
func putBeside(t testing.TB, db *DB, writers, n int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			var key []byte
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				key = benchKey(key, uint64(i))
				if err := db.Put(key, key, Sync); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkSyncBesideSpinners is 64 synced writers while every processor has a goroutine
// that only computes. Each return from a sync then waits for a time slice; what writers there are
// share that wait.
func BenchmarkSyncBesideSpinners(b *testing.B) {
	db := benchDB(b)
	spin(b)
	b.ResetTimer()
	putBeside(b, db, 64, b.N)
	b.StopTimer()
	m := db.Metrics()
	b.ReportMetric(float64(m.Log.Records)/float64(max(m.Log.Syncs, 1)), "records/sync")
	mustClose(b, db)
}

// TestSyncBesideSpinners: goroutines that compute do not starve those that sync, because one sync
// serves all who wait. 50 syncs a second, which is what the scheduler's time slice leaves, then
// still are some thousand writes.
func TestSyncBesideSpinners(t *testing.T) {
	db := mustOpen(t, t.TempDir(), Options{MemtableBytes: 1 << 20})
	spin(t)
	const writers, each = 64, 100 // enough that the first and last groups, which are small, do not count
	began := time.Now()
	putBeside(t, db, writers, writers*each)
	m := db.Metrics()
	t.Logf("%d records in %d syncs, %v", m.Log.Records, m.Log.Syncs, time.Since(began))
	if m.Log.Records != writers*each || m.Log.Syncs > writers*each/8 {
		t.Errorf("%d records in %d syncs", m.Log.Records, m.Log.Syncs)
	}
	mustClose(t, db)
}

const benchKeys = 1 << 18

func loadedDB(b *testing.B) *DB {
	db := benchDB(b)
	value := benchValue()
	var key []byte
	for i := range benchKeys {
		key = benchKey(key, uint64(i))
		if err := db.Put(key, value, NoSync); err != nil {
			b.Fatal(err)
		}
	}
	if err := db.Compact(b.Context(), nil, nil); err != nil {
		b.Fatal(err)
	}
	return db
}

// BenchmarkPutBesideReaders is a writer at full speed beside as many readers of loaded pairs as there
// are processors. What matters comes after some memtables: -benchtime 2000000x.
func BenchmarkPutBesideReaders(b *testing.B) {
	db := loadedDB(b)
	value := benchValue()
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		readers.Go(func() {
			var key, got []byte
			var err error
			for !stop.Load() {
				key = benchKey(key, rand.Uint64N(benchKeys))
				if got, err = db.GetTo(got[:0], key); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	var key []byte
	longest := time.Duration(0)
	b.ResetTimer()
	for range b.N {
		key = benchKey(key, rand.Uint64N(benchKeys))
		began := time.Now()
		if err := db.Put(key, value, NoSync); err != nil {
			b.Fatal(err)
		}
		longest = max(longest, time.Since(began))
	}
	b.StopTimer()
	stop.Store(true)
	readers.Wait()
	b.ReportMetric(longest.Seconds()*1e3, "longest-ms")
	mustClose(b, db)
}

func BenchmarkGetRandom(b *testing.B) {
	db := loadedDB(b)
	var key, dst []byte
	var err error
	for i := range benchKeys {
		key = benchKey(key, uint64(i))
		if dst, err = db.GetTo(dst[:0], key); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		key = benchKey(key, rand.Uint64N(benchKeys))
		if dst, err = db.GetTo(dst[:0], key); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	mustClose(b, db)
}

func BenchmarkGetMissing(b *testing.B) {
	db := loadedDB(b)
	var key []byte
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		key = benchKey(key, rand.Uint64N(benchKeys)+benchKeys)
		if _, err := db.GetTo(nil, key); err != ErrNotFound {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	mustClose(b, db)
}

func BenchmarkIterNext(b *testing.B) {
	db := loadedDB(b)
	it := db.NewIter(IterOptions{})
	ok := false
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if !ok {
			ok = it.First()
		} else {
			ok = it.Next()
		}
	}
	b.StopTimer()
	if err := it.Close(); err != nil {
		b.Fatal(err)
	}
	mustClose(b, db)
}

func BenchmarkSeekTen(b *testing.B) {
	db := loadedDB(b)
	var key []byte
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		key = benchKey(key, rand.Uint64N(benchKeys))
		it := db.NewIter(IterOptions{})
		ok := it.SeekGE(key)
		for range 10 {
			ok = ok && it.Next()
		}
		if err := it.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	mustClose(b, db)
}

package lsm

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kvd/compaction"
	"kvd/lsm/vfs"
)

// TestStallsEnd writes much faster than a slow disk takes it, with trees of every shape, while now
// and then a table cannot be made or is found damaged. Time is simulated: when a writer waits and
// nobody is left who would wake it, the test ends at once as a deadlock; and no write may wait for
// 5 s, or be refused for as long after a failure that passed.
func TestStallsEnd(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4)) // merges are split in more than two
	seeds := uint64(12)
	writes, worst := int64(0), time.Duration(0)
	until := time.Now().Add(*budget)
	for seed := uint64(0); seed < seeds || time.Now().Before(until); seed++ {
		synctest.Test(t, func(t *testing.T) {
			r := &stallRun{t: t, seed: seed, r: rand.New(rand.NewPCG(seed, 6))}
			r.run()
			writes += int64(r.writes)
			worst = max(worst, r.worst)
		})
	}
	t.Logf("the longest write took %v", worst)
	count(t, "operations", writes)
}

type stallRun struct {
	t      *testing.T
	seed   uint64
	r      *rand.Rand // of the writer
	writes int
	worst  time.Duration

	mu   sync.Mutex
	disk *rand.Rand
	on   atomic.Bool // the disk fails now and then
}

// inject slows down what is written to tables; no lock is held over that, so that simulated time
// can pass.
func (s *stallRun) inject(o vfs.Op) error {
	if !strings.HasSuffix(o.Name, tableSuffix) {
		return nil
	}
	s.mu.Lock()
	n := s.disk.IntN(1000)
	s.mu.Unlock()
	switch {
	case o.Kind == vfs.OpWriteAt || o.Kind == vfs.OpSync:
		time.Sleep(time.Duration(n) * 100 * time.Microsecond)
		if s.on.Load() && n%50 == 7 {
			return []error{syscall.ENOSPC, syscall.EMFILE, syscall.EIO}[n%3]
		}
	case o.Kind == vfs.OpCreate && s.on.Load() && n%25 == 3:
		return syscall.EMFILE
	}
	return nil
}

const stallMax = 5 * time.Second

func (s *stallRun) run() {
	s.disk = rand.New(rand.NewPCG(s.seed, 7))
	mem := vfs.NewMem()
	db := mustOpen(s.t, "data", Options{
		FS:            vfs.NewFault(mem, s.inject),
		MemtableBytes: 1 << (11 + s.r.IntN(6)),
		CacheBytes:    16 << 10,
		Compaction: compaction.Config{
			BaseBytes:        1 << (10 + s.r.IntN(8)),
			TableBytes:       1 << (5 + s.r.IntN(11)),
			Multiplier:       2 + s.r.IntN(9),
			LevelZeroTrigger: 1 + s.r.IntN(5),
		},
	})
	s.on.Store(s.seed%2 == 1)
	damaged := s.seed%4 == 3
	for s.writes = range 1500 {
		s.write(db)
		if damaged && s.writes == 700 {
			s.damage(db, mem)
		}
		if s.t.Failed() {
			break
		}
	}
	s.on.Store(false)
	s.write(db)
	if err := db.Close(); err != nil && !damaged {
		s.t.Errorf("seed %d: Close: %v", s.seed, err)
	}
}

// write puts one pair, however often it has to try.
func (s *stallRun) write(db *DB) {
	key := fmt.Appendf(nil, "%04d", s.r.IntN(3000))
	value := make([]byte, s.r.IntN(1<<s.r.IntN(12)))
	began := time.Now()
	for {
		err := db.Put(key, value, Durability(s.r.IntN(3)))
		took := time.Since(began)
		s.worst = max(s.worst, took)
		if took > stallMax {
			s.t.Errorf("seed %d: write %d took %v: %v", s.seed, s.writes, took, err)
			return
		}
		if err == nil {
			return
		}
		if !errors.Is(err, ErrSuspended) && !errors.Is(err, ErrDiskFull) {
			s.t.Errorf("seed %d: write %d: %v", s.seed, s.writes, err)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// damage flips a byte of the newest table, so that compactions leave it alone for ever.
func (s *stallRun) damage(db *DB, mem *vfs.Mem) {
	for _, tables := range db.state.Load().version.tables {
		if len(tables) > 0 {
			if err := mem.FlipByte(tables[0].name, 3, 1); err != nil {
				s.t.Error(err)
			}
			return
		}
	}
}

// TestFlushBesideBusyGoroutines: those who compute without a pause have a processor for 10 ms each,
// and a flush, with the log behind, needs not many more turns than its work is long: 0.3 to 0.9 s,
// where it takes 0.06 to 0.2 alone. When it gave its processor up at each step and each write, it
// was 27 s.
func TestFlushBesideBusyGoroutines(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	value := make([]byte, 1000)
	rand.NewChaCha8([32]byte{}).Read(value)
	write := func() time.Duration {
		db := mustOpen(t, t.TempDir(), Options{MemtableBytes: 64 << 20})
		defer db.Close()
		began := time.Now()
		for i := range 32 << 10 {
			if err := db.Put(fmt.Append(nil, i), value, NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	alone := write()
	spin(t)
	spin(t)
	beside := write()
	t.Logf("32 MB took %v alone, %v beside", alone, beside)
	if beside > 10*alone+2*time.Second {
		t.Errorf("%v alone, %v beside four that are busy", alone, beside)
	}
}

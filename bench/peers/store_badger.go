package main

import (
	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

func badgerEngine() *engine {
	return &engine{
		name:   "badger",
		module: "github.com/dgraph-io/badger/v4",
		acks: map[class]string{
			system: "SyncWrites off: copied into the mmap'ed log",
			synced: "SyncWrites on: msync per transaction",
		},
		run: func(s *session) error { return runStore(s, openBadger) },
	}
}

type badgerStore struct {
	quiet
	db   *badger.DB
	opts badger.Options
}

// openBadger keeps values in the tree (they are far below the value log's threshold), drops the
// detection of conflicts, which a plain put does not need, and runs two compactors, the fewest
// Badger allows.
func openBadger(dir string, o settings) (store, error) {
	opts := badger.DefaultOptions(dir).
		WithLogger(nil).
		WithMetricsEnabled(false).
		WithSyncWrites(o.Class == synced).
		WithDetectConflicts(false).
		WithValueThreshold(min(1<<20, o.MemtableBytes/10)). // Badger refuses more
		WithMemTableSize(o.MemtableBytes).
		WithBlockCacheSize(o.CacheBytes).
		WithIndexCacheSize(0). // zero keeps every index and filter in memory
		WithCompression(options.Snappy).
		WithBloomFalsePositive(0.01).
		WithBlockSize(4096).
		WithNumCompactors(2).
		WithNumVersionsToKeep(1)
	db, err := badger.Open(opts)
	if err != nil {
		return nil, err
	}
	return &badgerStore{quiet: quiet(dir), db: db, opts: opts}, nil
}

func (s *badgerStore) Put(key, value []byte) error {
	return s.db.Update(func(txn *badger.Txn) error { return txn.Set(key, value) })
}

func (s *badgerStore) Get(dst, key []byte) ([]byte, bool, error) {
	err := s.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		return item.Value(func(v []byte) error {
			dst = append(dst, v...)
			return nil
		})
	})
	if err == badger.ErrKeyNotFound {
		return dst, false, nil
	}
	return dst, err == nil, err
}

func (s *badgerStore) Load(n int, pair func(i int) (key, value []byte)) error {
	wb := s.db.NewWriteBatch()
	defer wb.Cancel()
	for i := range n {
		k, v := pair(i)
		kv := append(append(make([]byte, 0, len(k)+len(v)), k...), v...)
		if err := wb.Set(kv[:len(k):len(k)], kv[len(k):]); err != nil {
			return err
		}
	}
	return wb.Flush()
}

// Scan does not prefetch values: they lie in the tree beside their keys.
func (s *badgerStore) Scan(start []byte, n int, fn func(key, value []byte) bool) (int, error) {
	count := 0
	err := s.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.PrefetchValues = false
		it := txn.NewIterator(o)
		defer it.Close()
		more := true
		for it.Seek(start); more && it.Valid() && count != n; it.Next() {
			item := it.Item()
			err := item.Value(func(v []byte) error {
				more = fn(item.Key(), v)
				return nil
			})
			if err != nil {
				return err
			}
			count++
		}
		return nil
	})
	return count, err
}

// Compact closes and opens, the only way to flush the memtable, and flattens the levels.
func (s *badgerStore) Compact() error {
	if err := s.db.Close(); err != nil {
		return err
	}
	db, err := badger.Open(s.opts)
	if err != nil {
		return err
	}
	s.db = db
	return db.Flatten(2)
}

func (s *badgerStore) Close() error { return s.db.Close() }

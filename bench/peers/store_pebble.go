package main

import (
	"bytes"
	"context"
	"log"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

func pebbleEngine() *engine {
	return &engine{
		name:   "pebble",
		module: "github.com/cockroachdb/pebble/v2",
		acks: map[class]string{
			buffered: "NoSync: in the log's 32 KiB block, written behind",
			synced:   "Sync: fdatasync, shared by overlapping writers",
		},
		run: func(s *session) error { return runStore(s, openPebble) },
	}
}

type pebbleStore struct {
	quiet
	db *pebble.DB
	wo *pebble.WriteOptions
}

// openPebble tunes as CockroachDB does (level-0 thresholds, four memtables, large index blocks),
// with the block size, cache, memtable and filters every engine here gets.
func openPebble(dir string, o settings) (store, error) {
	cache := pebble.NewCache(o.CacheBytes)
	defer cache.Unref() // the DB holds its own reference
	opts := &pebble.Options{
		Cache:                       cache,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                uint64(o.MemtableBytes),
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       1000,
		LBaseMaxBytes:               64 << 20,
		MaxOpenFiles:                4096,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		Logger:                      silent{},
	}
	opts.Levels[0] = pebble.LevelOptions{
		BlockSize:      4096,
		IndexBlockSize: 256 << 10,
		FilterPolicy:   bloom.FilterPolicy(10), // lower levels inherit it
	}
	db, err := pebble.Open(dir, opts)
	if err != nil {
		return nil, err
	}
	wo := pebble.NoSync
	if o.Class == synced {
		wo = pebble.Sync
	}
	return &pebbleStore{quiet: quiet(dir), db: db, wo: wo}, nil
}

func (s *pebbleStore) Put(key, value []byte) error { return s.db.Set(key, value, s.wo) }

func (s *pebbleStore) Get(dst, key []byte) ([]byte, bool, error) {
	v, closer, err := s.db.Get(key)
	if err == pebble.ErrNotFound {
		return dst, false, nil
	}
	if err != nil {
		return dst, false, err
	}
	dst = append(dst, v...)
	return dst, true, closer.Close()
}

// getFiltered asks the last level's filter too, which Get never does: the way a user who expects
// misses would ask.
func (s *pebbleStore) getFiltered(dst, key []byte) ([]byte, bool, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return dst, false, err
	}
	found := it.SeekPrefixGE(key) && bytes.Equal(it.Key(), key)
	if found {
		dst = append(dst, it.Value()...)
	}
	return dst, found, it.Close()
}

func (s *pebbleStore) Scan(start []byte, n int, fn func(key, value []byte) bool) (int, error) {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return 0, err
	}
	count := 0
	for ok := it.SeekGE(start); ok && count != n; ok = it.Next() {
		count++
		if !fn(it.Key(), it.Value()) {
			break
		}
	}
	return count, it.Close()
}

func (s *pebbleStore) Compact() error {
	end := bytes.Repeat([]byte{0xff}, 32)
	return s.db.Compact(context.Background(), []byte{0}, end, false)
}

func (s *pebbleStore) Close() error { return s.db.Close() }

// silent drops what engines log.
type silent struct{}

func (silent) Infof(string, ...any)      {}
func (silent) Errorf(string, ...any)     {}
func (silent) Fatalf(f string, a ...any) { log.Fatalf(f, a...) }

package main

import (
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

func goleveldbEngine() *engine {
	return &engine{
		name:   "goleveldb",
		module: "github.com/syndtr/goleveldb",
		acks: map[class]string{
			system: "the operating system has the record: one write(2) per put",
			synced: "Sync: fsync, shared by merged writers",
		},
		run: func(s *session) error { return runStore(s, openGoleveldb) },
	}
}

type goleveldbStore struct {
	quiet
	db *leveldb.DB
	wo *opt.WriteOptions
}

func openGoleveldb(dir string, o settings) (store, error) {
	db, err := leveldb.OpenFile(dir, &opt.Options{
		WriteBuffer:            int(o.MemtableBytes),
		BlockCacheCapacity:     int(o.CacheBytes),
		BlockSize:              4096,
		Filter:                 filter.NewBloomFilter(10),
		Compression:            opt.SnappyCompression,
		OpenFilesCacheCapacity: 4096,
		CompactionTableSize:    8 << 20, // 2 MiB, the default, makes four times the files
		DisableSeeksCompaction: true,
	})
	if err != nil {
		return nil, err
	}
	wo := &opt.WriteOptions{Sync: o.Class == synced}
	return &goleveldbStore{quiet: quiet(dir), db: db, wo: wo}, nil
}

func (s *goleveldbStore) Put(key, value []byte) error { return s.db.Put(key, value, s.wo) }

func (s *goleveldbStore) Get(_, key []byte) ([]byte, bool, error) {
	v, err := s.db.Get(key, nil)
	if err == leveldb.ErrNotFound {
		return nil, false, nil
	}
	return v, err == nil, err
}

func (s *goleveldbStore) Scan(start []byte, n int, fn func(key, value []byte) bool) (int, error) {
	it := s.db.NewIterator(nil, nil)
	defer it.Release()
	count := 0
	for ok := it.Seek(start); ok && count != n; ok = it.Next() {
		count++
		if !fn(it.Key(), it.Value()) {
			break
		}
	}
	return count, it.Error()
}

func (s *goleveldbStore) Compact() error { return s.db.CompactRange(util.Range{}) }

func (s *goleveldbStore) Close() error { return s.db.Close() }

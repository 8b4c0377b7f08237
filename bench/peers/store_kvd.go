package main

import (
	"context"
	"errors"

	"kvd/lsm"
)

func kvdEngine() *engine {
	return &engine{
		name: "kvd",
		acks: map[class]string{
			buffered: "NoSync: in the log buffer, written behind within 5 ms",
			system:   "Async: the operating system has the record",
			synced:   "Sync: fdatasync, shared by overlapping writers",
		},
		run: func(s *session) error { return runStore(s, openKVD) },
	}
}

type kvdStore struct {
	quiet
	db         *lsm.DB
	durability lsm.Durability
}

func openKVD(dir string, o settings) (store, error) {
	db, err := lsm.Open(dir, lsm.Options{
		MemtableBytes:    o.MemtableBytes,
		CacheBytes:       o.CacheBytes,
		BlockBytes:       4096,
		FilterBitsPerKey: 10,
	})
	if err != nil {
		return nil, err
	}
	d := map[class]lsm.Durability{
		buffered: lsm.NoSync, system: lsm.Async, synced: lsm.Sync,
	}[o.Class]
	return &kvdStore{quiet: quiet(dir), db: db, durability: d}, nil
}

func (s *kvdStore) Put(key, value []byte) error { return s.db.Put(key, value, s.durability) }

func (s *kvdStore) Get(dst, key []byte) ([]byte, bool, error) {
	v, err := s.db.GetTo(dst, key)
	if err == lsm.ErrNotFound {
		return v, false, nil
	}
	return v, err == nil, err
}

func (s *kvdStore) Scan(start []byte, n int, fn func(key, value []byte) bool) (int, error) {
	it := s.db.NewIter(lsm.IterOptions{})
	count := 0
	for ok := it.SeekGE(start); ok && count != n; ok = it.Next() {
		count++
		if !fn(it.Key(), it.Value()) {
			break
		}
	}
	return count, errors.Join(it.Err(), it.Close())
}

func (s *kvdStore) Compact() error { return s.db.Compact(context.Background(), nil, nil) }

func (s *kvdStore) Close() error { return s.db.Close() }

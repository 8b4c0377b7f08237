package main

import (
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

func bboltEngine() *engine {
	return &engine{
		name:   "bbolt",
		module: "go.etcd.io/bbolt",
		acks: map[class]string{
			system: "NoSync: pages written to the operating system at each commit",
			synced: "two fdatasync per transaction; Batch joins concurrent writers",
		},
		run: func(s *session) error { return runStore(s, openBbolt) },
	}
}

var bboltBucket = []byte("pairs")

type bboltStore struct {
	quiet
	db     *bolt.DB
	single bool // one writer: Update; more: Batch
}

// openBbolt has no cache to size: bbolt reads through mmap. A batch closes as soon as every
// writer has joined it, since each waits for its own before it comes back.
func openBbolt(dir string, o settings) (store, error) {
	db, err := bolt.Open(filepath.Join(dir, "data.db"), 0o644, &bolt.Options{
		NoSync:          o.Class != synced,
		NoFreelistSync:  true,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: 1 << 30,
		NoStatistics:    true,
	})
	if err != nil {
		return nil, err
	}
	db.MaxBatchSize = max(o.Writers, 1)
	db.MaxBatchDelay = time.Millisecond
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bboltBucket)
		return err
	})
	if err != nil {
		db.Close()
		return nil, err
	}
	return &bboltStore{quiet: quiet(dir), db: db, single: o.Writers <= 1}, nil
}

func (s *bboltStore) Put(key, value []byte) error {
	fn := func(tx *bolt.Tx) error { return tx.Bucket(bboltBucket).Put(key, value) }
	if s.single {
		return s.db.Update(fn)
	}
	return s.db.Batch(fn)
}

func (s *bboltStore) Get(dst, key []byte) ([]byte, bool, error) {
	found := false
	err := s.db.View(func(tx *bolt.Tx) error {
		if v := tx.Bucket(bboltBucket).Get(key); v != nil {
			dst, found = append(dst, v...), true
		}
		return nil
	})
	return dst, found, err
}

// Load writes transactions of 20,000 pairs.
func (s *bboltStore) Load(n int, pair func(i int) (key, value []byte)) error {
	const group = 20_000
	for from := 0; from < n; from += group {
		err := s.db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(bboltBucket)
			for i := from; i < min(from+group, n); i++ {
				k, v := pair(i)
				// Put keeps the value until the commit.
				if err := b.Put(k, append([]byte(nil), v...)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *bboltStore) Scan(start []byte, n int, fn func(key, value []byte) bool) (int, error) {
	count := 0
	err := s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bboltBucket).Cursor()
		for k, v := c.Seek(start); k != nil && count != n; k, v = c.Next() {
			count++
			if !fn(k, v) {
				break
			}
		}
		return nil
	})
	return count, err
}

// Compact has nothing to do: the B+tree is always in its final form.
func (s *bboltStore) Compact() error { return nil }

func (s *bboltStore) Close() error { return s.db.Close() }

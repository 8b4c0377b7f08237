package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"kvd/bench"
	"kvd/lsm"
)

// embedded is the engine in this process. It may be used by many goroutines at once.
type embedded struct {
	ctx        context.Context
	db         *lsm.DB
	durability lsm.Durability
	counters   *counters
}

func openEmbedded(ctx context.Context, dir string, d lsm.Durability,
	cacheBytes int64) (store, error) {
	if err := checkDirectory(dir); err != nil {
		return nil, err
	}
	if cacheBytes == 0 {
		cacheBytes = -1 // none; 0 would mean the default
	}
	db, err := lsm.Open(dir, lsm.Options{CacheBytes: cacheBytes})
	if err != nil {
		return nil, err
	}
	return &embedded{ctx, db, d, &counters{last: db.Metrics()}}, nil
}

// checkDirectory refuses to put a database among the files of somebody else. What an engine leaves
// that died before it wrote CURRENT is its own to judge.
func checkDirectory(dir string) error {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("embedded target: %w", err)
	}
	foreign := ""
	for _, f := range files {
		name := f.Name()
		ours := name == "LOCK" || strings.HasPrefix(name, "MANIFEST-")
		switch filepath.Ext(name) {
		case ".wal", ".sst", ".tmp":
			ours = true
		}
		if name == "CURRENT" {
			return nil
		}
		if !ours && foreign == "" {
			foreign = name
		}
	}
	if foreign != "" {
		return usagef("--target embedded:%s: the directory holds no database but other files, "+
			"%s among them; name an empty or a new one", dir, foreign)
	}
	return nil
}

func (e *embedded) remote() bool { return false }

func (e *embedded) with(d lsm.Durability) bench.Target {
	return &embedded{e.ctx, e.db, d, e.counters}
}

func (e *embedded) Put(key, value []byte) error { return e.db.Put(key, value, e.durability) }

func (e *embedded) Get(dst, key []byte) ([]byte, bool, error) {
	v, err := e.db.GetTo(dst, key)
	if errors.Is(err, lsm.ErrNotFound) {
		return dst, false, nil
	}
	return v, err == nil, err
}

func (e *embedded) Scan(start []byte, n int, fn func(key, value []byte) bool) (int, error) {
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

func (e *embedded) Settle() error {
	return settle(e.ctx, e.db.Flush, func() (lsm.Metrics, error) { return e.db.Metrics(), nil })
}

func (e *embedded) Stats() []bench.Stat { return e.counters.since(e.db.Metrics()) }
func (e *embedded) Close() error        { return e.db.Close() }

// settle flushes and waits until no compaction runs or is about to. It looks now and then: a node
// can be asked in no other way.
func settle(ctx context.Context, flush func() error, look func() (lsm.Metrics, error)) error {
	const pause, quietLooks = 20 * time.Millisecond, 3
	if err := flush(); err != nil {
		return err
	}
	for quiet := 0; quiet < quietLooks; quiet++ {
		m, err := look()
		if err != nil {
			return err
		}
		if m.CompactionsRunning > 0 || m.MemtablesFrozen > 0 {
			quiet = -1
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

package bench

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
)

// fake is a store in memory. Its hooks let a test stand in the way of every operation.
type fake struct {
	mu    sync.Mutex
	pairs map[string][]byte
	order []string // sorted keys; nil = to be made

	before  func(key []byte) error
	spoil   func(key, value []byte) []byte // what Get and Scan return instead of value
	skip    func(key []byte) bool          // pairs that Scan leaves out
	settled atomic.Int64
	pings   atomic.Int64
}

func newFake() *fake { return &fake{pairs: map[string][]byte{}} }

func (f *fake) Put(key, value []byte) error {
	if f.before != nil {
		if err := f.before(key); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if old, ok := f.pairs[string(key)]; ok && len(old) == len(value) {
		copy(old, value)
		return nil
	}
	f.pairs[string(key)], f.order = bytes.Clone(value), nil
	return nil
}

func (f *fake) Get(dst, key []byte) ([]byte, bool, error) {
	if f.before != nil {
		if err := f.before(key); err != nil {
			return dst, false, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v, ok := f.pairs[string(key)]
	if ok && f.spoil != nil {
		v = f.spoil(key, v)
	}
	return append(dst, v...), ok, nil
}

func (f *fake) Scan(start []byte, n int, fn func(key, value []byte) bool) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.order == nil {
		for k := range f.pairs {
			f.order = append(f.order, k)
		}
		slices.Sort(f.order)
	}
	seen := 0
	at, _ := slices.BinarySearch(f.order, string(start))
	for _, k := range f.order[at:] {
		if seen == n {
			break
		}
		if f.skip != nil && f.skip([]byte(k)) {
			continue
		}
		v := f.pairs[k]
		if f.spoil != nil {
			v = f.spoil([]byte(k), v)
		}
		seen++
		if !fn([]byte(k), v) {
			break
		}
	}
	return seen, nil
}

func (f *fake) Settle() error { f.settled.Add(1); return nil }
func (f *fake) Close() error  { return nil }
func (f *fake) Ping() error   { f.pings.Add(1); return nil }

func (f *fake) Stats() []Stat { return []Stat{{"fake pairs", count(float64(len(f.pairs)))}} }

package compaction

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"

	"kvd/sstable"
)

// entry is one version in a table in memory.
type entry struct {
	key   sstable.Key
	value []byte
}

// memory is a set of tables in memory, with switches to make it fail. Its iterators and outputs
// may be used by several goroutines, each by one.
type memory struct {
	mu      sync.Mutex
	num     uint64
	tables  map[uint64][]entry
	open    int // iterators not closed
	opened  int
	aborted int
	synced  int
	levels  []int // of created outputs

	fail func(op string) error // called with open, next, create, add, finish, close, sync
}

// did counts something and asks whether it fails.
func (m *memory) did(op string, count func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	count()
	return m.fail(op)
}

func makeMemory() *memory {
	return &memory{tables: make(map[uint64][]entry), fail: func(string) error { return nil }}
}

func (m *memory) env(snapshots ...sstable.Seq) Env {
	return Env{Open: m.openTable, Create: m.create, Snapshots: snapshots}
}

// table adds a table of the given entries, which it sorts.
func (m *memory) table(entries []entry) *sstable.Meta {
	slices.SortFunc(entries, func(a, b entry) int { return sstable.Compare(a.key, b.key) })
	m.num++
	m.tables[m.num] = entries
	meta := describe(m.num, entries)
	return &meta
}

func describe(num uint64, entries []entry) sstable.Meta {
	meta := sstable.Meta{Num: num, MinSeq: sstable.SeqMax, Entries: uint64(len(entries))}
	meta.Smallest, meta.Largest = entries[0].key, entries[len(entries)-1].key
	for _, e := range entries {
		meta.MinSeq, meta.MaxSeq = min(meta.MinSeq, e.key.Seq()), max(meta.MaxSeq, e.key.Seq())
		if e.key.Kind() == sstable.KindDelete {
			meta.Tombstones++
		}
		meta.RawBytes += uint64(len(e.key.User) + len(e.value))
	}
	meta.Bytes = meta.RawBytes + 8*meta.Entries
	return meta
}

func (m *memory) openTable(meta *sstable.Meta) (sstable.Iterator, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fail("open"); err != nil {
		return nil, err
	}
	entries, ok := m.tables[meta.Num]
	if !ok {
		return nil, fmt.Errorf("no table %d", meta.Num)
	}
	m.open++
	m.opened++
	return &memoryIter{m: m, entries: entries, at: -1}, nil
}

func (m *memory) create(level int) (Output, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fail("create"); err != nil {
		return nil, err
	}
	m.levels = append(m.levels, level)
	m.num++
	return &memoryOutput{m: m, num: m.num}, nil
}

type memoryOutput struct {
	m       *memory
	num     uint64
	bytes   uint64
	entries []entry
}

func (o *memoryOutput) Add(k sstable.Key, value []byte) error {
	o.entries = append(o.entries, entry{k.Clone(), slices.Clone(value)})
	o.bytes += uint64(len(k.User) + 8 + len(value))
	return o.m.did("add", func() {})
}

func (o *memoryOutput) EstimatedBytes() uint64 { return o.bytes }

func (o *memoryOutput) Finish() (sstable.Meta, error) {
	err := o.m.did("finish", func() { o.m.tables[o.num] = o.entries })
	return describe(o.num, o.entries), err
}

func (o *memoryOutput) Sync() error { return o.m.did("sync", func() { o.m.synced++ }) }

func (o *memoryOutput) Abort() {
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	o.m.aborted++
	delete(o.m.tables, o.num)
}

type memoryIter struct {
	m       *memory
	entries []entry
	at      int
	err     error
}

func (i *memoryIter) move(at int) bool {
	i.at = min(max(at, -1), len(i.entries))
	i.err = i.m.did("next", func() {})
	return i.err == nil && i.at >= 0 && i.at < len(i.entries)
}

func (i *memoryIter) search(user []byte) int {
	return sort.Search(len(i.entries), func(n int) bool {
		return string(i.entries[n].key.User) >= string(user)
	})
}

func (i *memoryIter) First() bool             { return i.move(0) }
func (i *memoryIter) Last() bool              { return i.move(len(i.entries) - 1) }
func (i *memoryIter) SeekGE(user []byte) bool { return i.move(i.search(user)) }
func (i *memoryIter) SeekLT(user []byte) bool { return i.move(i.search(user) - 1) }
func (i *memoryIter) Next() bool              { return i.move(i.at + 1) }
func (i *memoryIter) Prev() bool              { return i.move(i.at - 1) }
func (i *memoryIter) Key() sstable.Key        { return i.entries[i.at].key }
func (i *memoryIter) Value() []byte           { return i.entries[i.at].value }
func (i *memoryIter) Err() error              { return i.err }

func (i *memoryIter) Close() error { return i.m.did("close", func() { i.m.open-- }) }

// read returns the newest version of a user key with a sequence number up to at, "" if there is
// none or it is a tombstone. Levels are searched as a reader does: the first that answers wins.
func (m *memory) read(l *Levels, user string, at sstable.Seq) string {
	for i := range l {
		for _, t := range l[i] {
			for _, e := range m.tables[t.Num] {
				if string(e.key.User) == user && e.key.Seq() <= at {
					if e.key.Kind() == sstable.KindDelete {
						return ""
					}
					return string(e.value)
				}
			}
		}
	}
	return ""
}

var errInjected = errors.New("injected")

// failAt returns a fail function that fails the nth operation of a kind.
func failAt(op string, n int) func(string) error {
	return func(got string) error {
		if got != op {
			return nil
		}
		if n--; n == 0 {
			return errInjected
		}
		return nil
	}
}

// parseEntry reads "key.PUT.7=value", the value being optional, or "key.DEL.7".
func parseEntry(s string) entry {
	s, value, _ := strings.Cut(s, "=")
	part := strings.Split(s, ".")
	var seq sstable.Seq
	if len(part) != 3 {
		panic("want key.KIND.seq, got " + s)
	}
	if _, err := fmt.Sscan(part[2], &seq); err != nil {
		panic(err)
	}
	kind := sstable.KindPut
	if part[1] == "DEL" {
		kind = sstable.KindDelete
	}
	return entry{sstable.MakeKey([]byte(part[0]), seq, kind), []byte(value)}
}

func (e entry) String() string {
	return fmt.Sprintf("%s.%v.%d", e.key.User, e.key.Kind(), e.key.Seq())
}

package main

import (
	"fmt"

	"kvd/bench"
)

// class says what an acknowledged write survives. Throughput may only be compared within one
// class, so every engine states its own for each and the report prints them.
type class uint8

const (
	// buffered: the write sits in a buffer of the process; a kill -9 may lose the last of them.
	buffered class = iota
	// system: the operating system has the write; it survives kill -9, not power loss.
	system
	// synced: the log is on the device; it survives power loss.
	synced
)

func (c class) String() string { return [...]string{"buffered", "system", "synced"}[c] }

// settings are what every engine gets alike.
type settings struct {
	Class         class
	CacheBytes    int64
	MemtableBytes int64
	Writers       int // goroutines that will write at once, for engines that batch by count
}

// store is one open database of one engine under load. Target.Settle is the same rule for all (see
// settle.go). Compact and Close are called only when nothing else runs.
type store interface {
	bench.Target
	// Compact merges everything that was written into the engine's most compact form.
	Compact() error
}

// opener makes a store in an empty directory, or opens the one that is there.
type opener func(dir string, o settings) (store, error)

// bulkLoader is met by engines whose single writes are so slow that the rest of a load, after a
// row was cut off, is better written in large transactions.
type bulkLoader interface {
	Load(n int, pair func(i int) (key, value []byte)) error
}

// engine is one column of the table.
type engine struct {
	name   string
	module string // import path whose version is reported; empty for db_bench
	// acks says what each class means in this engine; a class it has not is absent.
	acks map[class]string
	// skip gives the reason for a row that makes no sense here.
	skip map[string]string
	run  func(*session) error
}

// loadClass is the class in which the engine runs the unsynced rows: the weakest it has.
func (e *engine) loadClass() class {
	if _, ok := e.acks[buffered]; ok {
		return buffered
	}
	return system
}

func (e *engine) row(name string) bool { _, out := e.skip[name]; return !out }

// engines lists the columns, ours first.
func engines() []*engine {
	return []*engine{
		kvdEngine(), pebbleEngine(), badgerEngine(), goleveldbEngine(), bboltEngine(),
		rocksdbEngine(),
	}
}

func engineNamed(name string) (*engine, error) {
	for _, e := range engines() {
		if e.name == name {
			return e, nil
		}
	}
	return nil, fmt.Errorf("peers: no engine named %q", name)
}

// Peers runs kvd's engine beside Pebble, Badger, goleveldb, bbolt and RocksDB on the same workload
// and prints one table:
//
//	go run . --rounds 2
//
// # What is the same for everyone
//
// Keys of 16 bytes and values of 100 half-compressible bytes from kvd/bench, decided by a seed;
// cache, memtable, block size, compression and filter bits; the number of readers and writers; the
// rule that says when background work is over (settle.go, which watches the process and the
// directory from outside); memory touched once before the first engine; the order of engines, which
// turns by half from round to round; a process of its own for each engine and round.
//
// # What is not
//
// Durability classes differ and each is named in the output (store.go). The unsynced rows use the
// weakest class of each engine: Badger, goleveldb and bbolt have none below "survives kill -9", so
// a row of its own compares everyone in that class.
//
// # How an engine gets in
//
// A file store_NAME.go wraps it as a store: bench.Target and Compact. rocksdb.go drives db_bench
// instead, since the module has no C++ in it.
//
// # Order of reading
//
// rows.go, the lines of the table; store.go, what an engine must offer; drive.go, the timed loops;
// session.go, the stages of one engine; large.go, sustain.go and scale.go, those that take
// long; main.go, child.go and limit.go, rounds and processes; report.go.
package main

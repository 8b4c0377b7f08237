// Package lsm is the storage engine: an embedded, ordered key-value store with durable writes,
// snapshots and iterators, as a log-structured merge tree.
//
//	db, err := lsm.Open("data", lsm.Options{})
//	err = db.Put([]byte("apple"), []byte("red"), lsm.Sync)
//	value, err := db.Get([]byte("apple"))
//	err = db.Close()
//
// # What is promised
//
// A write is acknowledged with the [Durability] it asks for. A [Batch] is visible and durable as a
// whole or not at all. After a crash the database holds a prefix of the order of commits, and in
// it every write that was acknowledged as durable. A read sees every write that returned before it
// began. Damage to a file is reported as a [CorruptError], never served. After a failed sync or
// write of the log or the manifest the database is read only; on a full disk, or while a table
// cannot be made for another reason, writes fail until it can.
//
// # The life of a Put
//
// commit.go is the whole of it: under one short lock a commit takes its sequence numbers, its space
// in the memtable (memtable.go, nodes in an arena: node.go, arena.go) and its place in
// the log buffer (package wal). It inserts its entries outside the lock, beside others. publish.go
// makes commits visible in their order. Then the commit waits for its durability class; one write
// or sync of the log serves all who wait.
//
// The memtable is a hash table first (pointindex.go), which is all that Put and Get need. Its order
// is made when an iterator or the flush asks for it: what is there is sorted once (memrun.go), and
// what comes later goes into a skip list as well (skiplist.go).
//
// # The life of a Get
//
// get.go takes the current read state (readstate.go): the memtable, the frozen memtables, the
// version, which is the list of tables (version.go). It asks them newest first, and the first
// answer is the answer. Package sstable/rcu lets it do so without a
// shared counter.
//
// # Flush and compaction
//
// A full memtable is frozen and a new one takes its place, together with a new log segment
// (segment.go). flush.go writes frozen memtables to tables of level 0. compact.go runs the jobs
// that package compaction picks; idle.go has it merge level 0 when nobody writes. Either ends in
// install: open the new tables, append an edit (edit.go) to the manifest (manifest.go), make the
// new version current. Only then are inputs removed, and only when nobody reads them any more.
// pace.go slows writers down by a little before they would have to stop.
//
// # Scrub
//
// scrub.go reads every file again within Options.ScrubPeriod, if reading for a quarter of the time
// is enough, from the disk and not from the cache of the operating system, a little at a time:
// damage is found while there is still something to mend it from. What memory has is written anew:
// the manifest and CURRENT, the records of the log, a table whose blocks can still be had
// (scrub_heal.go). Nothing is mended in silence: damage is logged, with file and offset, and
// counted. A table that is beyond mending stays as it is. Reads of what is damaged in it fail, no
// compaction uses it, and Metrics names it.
//
// # Opening
//
// open.go reads the manifest, opens the tables and replays the log (replay.go) into tables. A log
// that ends in what was never synced is trimmed; damage below that is refused. Files are named in
// files.go. salvage.go makes a new database of what is left of a damaged one.
package lsm

// Package metamorphic tests kvd/lsm by what it promises and nothing else. It draws lists of
// operations, replays each of them on databases that have little in common but the promises, and
// compares everything that they answer.
//
// # What is compared
//
// A list is replayed under about ten plans. A plan says with which options the database is opened
// each time: blocks of one byte or 64 KiB, a memtable that holds three pairs or all, a tree of
// seven levels or of one, with and without filters and cache, every write synced or none, and
// plans whose options change with each Open. What the database answers to an operation is one line
// of its history. Options are about speed, so all histories must be the same, byte for byte. What
// it is that they must be says a model: a sorted list of pairs, copied when somebody takes a
// snapshot. With the model the comparison is of each database with the one history, and stops
// where they part.
//
// What is not an answer is looked at on the way: DB.Check after flushes, compactions, checkpoints
// and recoveries and now and then between writes, metrics that cannot be, files left open, and
// what a compaction of everything leaves, which is one entry for each live key.
//
// # A loss of power
//
// A crash leaves less under one plan than under another. The replay asks that what is recovered is
// what the model had after some operation, none earlier than the last one that was acknowledged as
// durable. Then it writes again what was lost, and the histories go on as one. A checkpoint that
// was open has to be there as it was.
//
// # A list
//
// A list is text, one operation a line, so that one that fails can be saved, read and replayed.
// All verbs, in a list that fails nowhere:
//
//	put db "k" 30:7 sync
//	put db "\x00"*3+"\xff" 70000:8 nosync
//	delete db "k" async
//	batch db nosync put "a" 1:2 delete "a" put "b" 0:0
//	get db "b"
//	snapshot s0
//	get s0 "a"
//	iter i0 s0 "a" -
//	first i0
//	next i0 2
//	last i0
//	prev i0 1
//	seekge i0 "b"
//	seeklt i0 "b"
//	drop s0
//	close i0
//	scan db "a" "z" reverse
//	flush
//	compact - "m"
//	compacting "b" -
//	checkpoint c0 writable
//	put c0 "only\x20here" 1:1 sync
//	reopen
//	readonly
//	crash Torn 42 none peek again
//	leave c0
//	metrics
//	scrub
//
// Words with a quote are keys: parts, joined with + and repeated with *. 30:7 is a value of 30
// bytes that follow from the number 7; an odd number gives bytes that do not compress. A minus
// sign is an open bound. Writes say their durability last, batches first. db is the database, c0
// and c1 are open checkpoints, s0 to s3 snapshots, i0 to i5 iterators; to speak of one that is not
// open does nothing, so that any part of a list is a list. compacting goes on beside what follows.
// crash has the mode of vfs.Mem.Crash, its seed, and what is done before it to be safe (sync,
// flush, none); peek looks read only at what is left, again loses the power a second time after
// the recovery. Lines that begin with "options" are the plans to replay it under.
//
// # A failure
//
// A list that fails is shrunk: parts of it are left out as long as it still fails, then keys,
// values and flags are made simple. The failure prints what is left of it, the options, and the
// command:
//
//	go test ./lsm/metamorphic -run 'TestMetamorphic$' -metamorphic.replay=FILE
//
// That lists are found and get short is tested with databases that are wrong on purpose. More
// seeds than the few of every day run with -budget=10m.
package metamorphic

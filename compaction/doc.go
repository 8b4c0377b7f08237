// Package compaction keeps the tree of tables in shape: it decides which tables to merge, merges
// them, and drops the versions nobody can read any more. It opens no files; tables come and go
// through functions its caller passes in (Env), and the tree is a value (Levels).
//
// # The steps
//
//  1. Config.Targets gives each level its size, from the bytes there are (targets.go).
//  2. Config.Scores compares; the most urgent level at 1 or above is worked on (targets.go).
//  3. Picker.Pick chooses tables of it and all of the next level that share keys with them: a Job.
//     Tables that running jobs use exclude a job (picker.go). Manual.Next does the same for a
//     compaction that was asked for (manual.go), Picker.PickIdle for a moment when nobody writes.
//  4. Run merges the inputs (source.go, run.go), those of level 0 in parts side by side (split.go),
//  5. drops what no reader can see (reduce.go), cuts the rest into tables (cut.go) and counts:
//     entries read = written + shadowed + dropped, or the job fails and leaves nothing behind.
//  6. Job.Change says what to install; Levels.Apply makes the next tree of it (levels.go).
//
// All but step 4 are functions of values and are tested without a byte of table: TestSimulate takes
// a tree through hundreds of thousands of flushes in seconds.
//
// # The shape
//
// Level 0 holds flushed memtables, newest first, overlapping. Below it each level is one sorted run
// of tables, disjoint in user keys, and holds older data than the level above. Data settles at the
// bottom, level 6, first; levels are added above it as it grows. With BaseBytes = 256 MiB and
// Multiplier = 10, a tree of 100 GiB has 0.9 of that expected at the bottom and:
//
//	L0   1.0 GiB   16 flushes: a 12th of the tree, between one and four times BaseBytes; less if
//	               its tables are compressed (Config.Compress)
//	L4   1.0 GiB   base level: 92160 / 100 = 922 MiB is less than twice level 0
//	L5   9.0 GiB   92160 / 10
//	L6    90 GiB   what there is
//
// Level 0 merges straight into L4; the levels between are empty. All levels above the bottom make
// up a ninth to a fifth of it, which bounds the space taken by overwritten versions. A table leaves
// its level for the next when the level is above its target; each byte is thus rewritten about once
// per level plus the tables it meets there. TestSimulate counts 6.1 bytes written per byte flushed
// for uniform keys (bottom 128 flushes), 5.6 for skewed ones, 2.0 for sequential ones, whose tables
// mostly change level without being rewritten. TestSimulateSizes has trees of other sizes.
//
// # What is dropped
//
// A snapshot at sequence number s sees of each key the newest version up to s. The snapshots thus
// cut the sequence numbers into stripes, and all readers within a stripe see the same version:
// its newest. With snapshots at 4 and 7, and nothing below the target of the job:
//
//	key k, newest first         kept        why
//	  PUT 9                     PUT 9       newest above all snapshots
//	  DEL 8                                 shadowed by 9
//	  ---------- snapshot 7
//	  DEL 6                     DEL 6       what the snapshot at 7 sees; must hide 3
//	  PUT 5                                 shadowed by 6
//	  ---------- snapshot 4
//	  PUT 3                     PUT 0       what the snapshot at 4 sees; its number can go
//	  PUT 1                                 shadowed by 3
//
// Had the 3 been a tombstone it would be dropped: it is in the oldest stripe, so no reader is
// older than it, and there is nothing for it to hide. If a table in a level below could hold k,
// it would have to stay, and so would the number of the put. Versions above the job's levels
// are newer and do not matter; versions in its own levels are in the job, since a job
// takes every table that shares keys with it.
//
// # Jobs side by side
//
// Several jobs may run at once. Each takes all tables of its source and target level that overlap
// its range, and none of those may be busy. So ranges of jobs with the same target are disjoint,
// and nothing can move past a running job on the way down: it would have to go through tables
// that are busy. What was found below the target when a job was picked can only move deeper.
//
// # Pacing
//
// Pressure puts into one number how far behind compaction is, and Delay turns it into a delay of
// writes: none up to 0.5, at 1 as slow as compaction drains, beyond that slower, with no step
// anywhere. TestPacingLoop closes the loop with a simulated disk.
package compaction

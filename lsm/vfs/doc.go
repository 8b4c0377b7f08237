// Package vfs is the file system as the engine sees it: few operations, each with an exact promise
// about what a loss of power may take away.
//
// Three file systems keep that promise:
//
//   - [OS] is the real one.
//   - [Mem] holds files in memory and knows, for every sector and every directory entry, whether it
//     would survive. [Mem.Crash] returns the disk that a loss of power would leave.
//   - [Fault] wraps another one and fails the operations a test chooses.
//
// # What is durable
//
// There are two kinds of durability and neither implies the other:
//
//	File.Sync    the bytes and the size of the file
//	FS.SyncDir   the names in one directory: creations, renames, links and removals
//
// A new file therefore takes four steps before it can be relied on:
//
//	f, err := fs.Create("db/000007.sst")  // the name may vanish, the content may vanish
//	f.WriteAt(...)
//	f.Sync()                              // the content stays, if the name does
//	fs.SyncDir("db")                      // now both stay
//
// and a file is replaced by writing the successor under another name, syncing it, renaming it over
// the old one and syncing the directory. A directory is an entry of its parent: after MkdirAll it
// is the parent that has to be synced, and the parent's parent if that is new too.
//
// # What a loss of power does
//
// The model of [Mem], which is what code above this package may assume of a disk and no more:
//
//   - Content is written in sectors of 512 bytes. Of the sectors written since the last Sync of the
//     file each survives or reverts by itself, in no order.
//   - The size is separate from the content. It may survive where the content did not, and the
//     missing part reads as zeros. Of an unsynced growth a part may survive.
//   - Of the changes to directories not yet synced any subset survives: a later one without an
//     earlier one, a removal that did not happen, a creation that did not either.
//   - A rename is atomic for its target: the name leads to the old file or to the new one. It does
//     not lose the renamed file between its two names, but may leave it under both.
//   - A sector that was being written may be torn, its first part new and the rest old
//     ([Torn]), or hold anything where bytes were being changed ([Garbage]). Bytes of a sector
//     that were not being changed are safe, as on any disk with sector checksums.
//
// A file synced as a whole under a name synced by SyncDir is exact in every mode.
//
// # What a failed sync does
//
// Of what was to become durable any part may be, and a later sync need not make up for the rest. A
// [Fault] can have a sync fail in three ways, and code has to be right under all of them:
//
//   - With a plain error the sync is not done. What is dirty stays dirty, and the next sync makes
//     it durable.
//   - With [LostSync] what is dirty counts as clean from then on, as on systems that give up what
//     they could not write: the next sync succeeds and the data is not on the disk. Nothing shows
//     it until the power fails. What is written again is dirty again.
//   - With [EvictedSync] reads too see the old content from then on.
//
// The same goes for the names in a directory and SyncDir.
package vfs

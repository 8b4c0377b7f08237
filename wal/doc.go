// Package wal is the commit log: an append-only stream of records that concurrent writers make
// durable together, and its recovery. The manifest is a log of this kind too. The package knows no
// names and no directories: creating, preparing, renaming, recycling and deleting segment files is
// the business of the caller.
//
// # What it promises
//
// A record is recovered whole or not at all, and only if all before it are. What Sync acknowledged
// survives a power loss, what Write acknowledged survives the death of the process. No record comes
// back that was not appended to this log: not from the previous life of a recycled file, not from
// another place. Damage to what was acknowledged is an error that names the segment and the
// offset; what a crash leaves behind the last acknowledged record is not, it is trimmed.
//
// # Positions
//
// A Pos counts the bytes of the record stream, each record's length prefix included, from the
// first record of the log on. It runs through all segments and is never reset. Append returns the
// position after the record; "everything below p" is what Write and Sync wait for.
//
// # A segment
//
// A segment file is a header page of 4096 bytes and frames. The header holds two copies of its 48
// bytes, in different sectors, and it is synced before the file gets its name, so that a segment
// without a header is damaged, not young. It holds a random nonce for this incarnation of the file
// and the identity of the log, so that a segment of another log is told from one of this, and no
// position: a segment is prepared before anybody knows where the stream will enter it.
//
// A frame is what one group of writers shares: one write, and one sync if one of them asked for it.
// See frame.go for its fields. The checksum covers nonce and file offset besides the frame. The
// durable field says what had been synced when the frame was written. That is what recovery goes
// by: it ends where no valid frame continues the stream, and if a frame anywhere beyond vouches for
// more than that, data is lost (CorruptError); if none does, nothing that was acknowledged is.
// A frame without payload is the END frame of a log that was closed; it vouches for everything.
//
// This is a log of two syncs, the records "put a=1" and "put b=2" first and "delete a" next, then
// closed. The file name is not part of it; the segment is number 1, its nonce 0x0123456789abcdef.
// Each line is a file offset and the bytes there; what is left out is zero.
//
//	@0:    6b766477616c0d0a           magic, "kvdwal\r\n"
//	@8:    01000000 00000000           version 1
//	@16:   0100000000000000           segment 1
//	@24:   efcdab8967452301           nonce
//	@32:   0011223344556677           log 0x7766554433221100
//	@40:   54c0e58a56ca8813           xxhash64 of the 40 bytes before
//	@2048: 6b766477616c0d0a 01000000 00000000 0100000000000000 efcdab8967452301
//	@2080: 0011223344556677 54c0e58a56ca8813   the other copy
//
//	@4096: 10000000 5a7f89b3           16 bytes of payload, sum
//	@4104: 0000000000000000           position 0
//	@4112: 0000000000000000           nothing is durable yet
//	@4120: 07 70757420613d31          "put a=1"
//	@4128: 07 70757420623d32          "put b=2"
//
//	@4136: 09000000 d410d6bc           9 bytes of payload, sum
//	@4144: 1000000000000000           position 16
//	@4152: 1000000000000000           all below 16 is durable
//	@4160: 08 64656c6574652061        "delete a"
//	@4169: 00000000000000             zeros to a multiple of 8
//
//	@4176: 00000000 0ebe6c09           END: no payload, sum
//	@4184: 1900000000000000           position 25
//	@4192: 1900000000000000           all below 25 is durable
//
// # Group sync
//
// There is no goroutine in the package. The first writer that has to wait leads: it takes the
// buffer, in which room for the frame header was left, seals it in place, writes and syncs, while
// the others fill the other buffer and wait for the next group. Two conditions, by the parity of
// the group's number, let it wake exactly those it served, and one of the others to lead next.
// Segments grow ahead of syncing writers in steps of zeros, because a sync that also has to log a
// new file size is slower; recycled ones have their size already.
package wal

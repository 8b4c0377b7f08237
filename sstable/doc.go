// Package sstable is the sorted, immutable file of the engine: it writes entries that come in order
// and finds them again by key, by position, forwards and backwards.
//
// It promises that a lookup of a key that is not there costs one cache line, that one which is
// costs at most one read, unless its versions lie in several blocks and an old one is asked for,
// and that nothing of a damaged table is ever taken for data: every part is checksummed with a seed
// made of the table's identity and its own place in the file, so a block that is stale, misplaced
// or of another table fails as surely as a flipped bit. Whatever the bytes of a file are, the
// answer is right or a *CorruptError, and memory stays within the caps of the format and the size
// of the file.
//
// # How it works
//
// An entry is an internal key (a user key, a sequence number, a kind) and a value. Writer packs
// entries into data blocks of about 4 KiB and remembers for each a separator, the shortest user key
// it can find at or after the block's last and before the next one's first, and for each user key
// its Hash. Finish turns these into the index and the filter.
//
// Reader keeps index and filter in memory. Get asks the filter, then the index which block the key
// would be in, then the block. An open table has one slot per data block, a number that says where
// the Cache has it, so finding a cached block is a load and not a hash lookup. The Cache is one
// piece of memory outside the Go heap, written round and round (cache.go, cachelog.go). Package rcu
// tells it when nobody reads any more what it is about to overwrite, and package offheap has the
// memory.
//
// TableIter walks one table, Merge walks several Iterators as one. The versions of a user key come
// newest first, and may be spread over several blocks. Salvager walks what is left of a damaged
// table.
//
// # Format
//
// Integers are little-endian, varints are those of encoding/binary and minimal.
//
//	file       = data blocks | zeros to a multiple of 64 | filter | index | properties | footer
//	data block = payload | u8 type: 0 raw, 1 snappy | u32 low half of the checksum of both
//	payload    = u32 entries | u16 length of common prefix | u8 flags | u8 zero | u64 base
//	             | common prefix | end of each entry | entries
//	end        = u16, or u32 if flags has bit 0: when the payload has more than 65535 bytes;
//	             counted from the start of the payload
//	entry      = uvarint length of suffix | uvarint (seq - base)<<3|kind | suffix | value
//	filter     = 64-byte lines of eight u64
//	index      = u32 blocks | u32 length of common prefix | common prefix
//	             | u32 length of each block | u32 end of each suffix | suffixes
//	properties = (uvarint number<<1|required | uvarint length | bytes) ..., numbers ascending
//	footer     = u64 UID | u64 Num | (u64 offset | u64 length | u64 checksum) of filter, index and
//	             properties | u32 version | u32 probes | u64 file size | u64 zero | u64 xxhash64
//	             of the footer so far | 8 bytes magic
//
// The common prefix of a block is cut from its keys, that of the index from its separators. Blocks
// have no restart points: with an end for each entry they are searched by bisection and walked
// backwards as easily as forwards. base is the least sequence number in the block. Block lengths in
// the index include the trailer of five bytes.
//
// Checksums are xxhash64 with the seed UID ^ offset*0x9e3779b97f4a7c15, offset being where the
// summed bytes start.
//
// The filter sets for each user key, with h its Hash, bits in line (h>>32)*lines>>32: x starts as
// the low half of h, and probes times bit x>>23 is set and x multiplied by 0x9e3779b9 (mod 2^32).
//
// # An example
//
// This is table 7 with UID 0x1122334455667788 and the entries apple#7,PUT = red, apple#3,DEL and
// apricot#5,PUT = orange.
//
//	00000000  03 00 00 00 02 00 00 00  03 00 00 00 00 00 00 00  |................|
//	00000010  61 70 20 00 25 00 32 00  03 21 70 6c 65 72 65 64  |ap .%.2..!plered|
//	00000020  03 00 70 6c 65 05 11 72  69 63 6f 74 6f 72 61 6e  |..ple..ricotoran|
//	00000030  67 65 00 4b 9d 2e 5a 00  00 00 00 00 00 00 00 00  |ge.K..Z.........|
//	00000040  00 00 00 00 00 00 00 00  00 00 00 00 00 00 02 00  |................|
//	00000050  04 00 00 00 20 00 10 02  00 00 00 00 00 40 00 10  |.... ........@..|
//	00000060  00 00 80 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|
//	00000070  00 00 00 02 81 00 00 00  00 00 04 00 00 00 00 00  |................|
//	00000080  01 00 00 00 07 00 00 00  61 70 72 69 63 6f 74 37  |........apricot7|
//	00000090  00 00 00 00 00 00 00 03  05 61 70 70 6c 65 05 02  |.........apple..|
//	000000a0  81 0e 07 07 61 70 72 69  63 6f 74 09 02 81 0a 0b  |....apricot.....|
//	000000b0  01 03 0d 01 07 0f 01 03  11 01 01 13 01 1a 15 01  |................|
//	000000c0  01 17 01 37 19 01 32 1b  01 02 88 77 66 55 44 33  |...7..2....wfUD3|
//	000000d0  22 11 07 00 00 00 00 00  00 00 40 00 00 00 00 00  |".........@.....|
//	000000e0  00 00 40 00 00 00 00 00  00 00 00 22 b1 29 16 00  |..@........".)..|
//	000000f0  72 e1 80 00 00 00 00 00  00 00 17 00 00 00 00 00  |r...............|
//	00000100  00 00 99 2c eb 9d e6 62  9b 30 97 00 00 00 00 00  |...,...b.0......|
//	00000110  00 00 33 00 00 00 00 00  00 00 bd 2a ea 95 45 2b  |..3........*..E+|
//	00000120  a9 0e 01 00 00 00 06 00  00 00 4a 01 00 00 00 00  |..........J.....|
//	00000130  00 00 00 00 00 00 00 00  00 00 1b c4 bf d6 20 95  |.............. .|
//	00000140  a0 78 6b 76 64 00 73 73  74 0a                    |.xkvd.sst.|
//
// At 00 the payload: 3 entries, common prefix of 2, no flags, base 3. At 10 the prefix "ap" and the
// ends 0x20, 0x25, 0x32. At 18 the first entry: suffix of 3 bytes, 0x21 = (7-3)<<3|1, "ple", "red".
// The second, a tombstone, is 03 00 "ple". At 32 the trailer: raw, checksum 0x5a2e9d4b. At 40 the
// filter of one line, in which two keys have set up to 6 bits each. At 80 the index: one block,
// whose separator "apricot" is all prefix; 0x37 bytes stored; an empty suffix that ends at 0. At 97
// the properties, from 03 05 "apple", the smallest user key (number 1, required). At ca the footer.
package sstable

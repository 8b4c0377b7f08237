// Package bench makes load, measures what a store answers, and says what it saw.
//
// # Rules of measurement
//
// A figure is worth as much as the care taken around it, so the package keeps these rules and
// prints a warning next to every result that broke one.
//
//   - Two loops, never mixed up. The closed loop starts an operation when the previous one of the
//     same worker ended: its latencies are service times, and a stall of the store is seen by one
//     operation per worker only. The open loop (Spec.Rate) starts operation i at start + i/rate
//     whatever the store does, and measures from that intended start: a stall of one second is seen
//     by every operation that was due during it. Response times come from the open loop alone.
//   - Two clock reads per operation. Keys and values are made before the first, checked after the
//     second. BenchmarkRunner shows what the runner itself costs.
//   - Percentiles come from HdrHistograms of 3 digits from 1 ns to 1 h. Workers hold samples in a
//     small buffer of their own and merge it, so recording never blocks an operation for long.
//     Nothing is averaged over percentiles.
//   - The client is suspect too. When its goroutines waited for a processor, when its clock woke it
//     late, or when it was built with the race detector, the result says so.
//   - Same data for everyone. Keys and values follow from the seed alone; values compress to about
//     one half, as real ones do.
//   - Reads are used. A run with one worker and a fixed number of operations has a hash over all it
//     read: two stores given the same run must print the same hash.
//   - Write phases end with Target.Settle outside the clock, whose time is reported as a debt.
//
// # Keys
//
// A key is the hexadecimal Number of its place in the key space, 16 digits by default. The last
// digit is the layer: 0 for the loaded keys, 1 to e for keys that a run inserts between them, f for
// keys that are never written. Key 1000 (0x3e8) of the loaded ones and its missing neighbour:
//
//	0000000000003e80
//	0000000000003e8f
//
// # Values
//
// A value says whose it is, so that a reader can tell a right one from a damaged one, a stale one
// and one of another key. It starts with 20 bytes, big endian, and goes on in pieces of at most 100
// bytes, of each of which the second half repeats the first; the last may be cut short:
//
//	number 8 | version 8 | crc32c over all the other bytes 4 | body
//
// The value of 28 bytes for loaded key 1, version 7, seed 1 (the body starts at byte 20):
//
//	00000000000000100000000000000007 9193bde3 0462845c0462845c
//
// # Verification
//
// With a Ledger the runner knows which version of each loaded key was acknowledged. A read that
// finds no value, a value older than the one acknowledged before the read began, or one that nobody
// wrote is a failure; so is a scan with such a pair, one that skips an acknowledged key,
// ends before one with fewer pairs than asked for, or returns keys out of order. When Loaded found
// the keys of an earlier process there, each of them counts as acknowledged, in any version. Keys
// inserted beyond the loaded ones are missed by a read, not by a scan. The first offence is in
// Result.Offence. To know the order of writes without locks, each worker of a
// verified run updates keys of its own residue class only.
package bench

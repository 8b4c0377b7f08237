// Command kvbench makes load on a kvd node or on the engine in its own process, checks what it
// reads when asked to, and reports what it saw as a table, as JSON and as a page with pictures.
//
//	kvbench fillrandom readrandom --target embedded:/tmp/db --keys 1M --durability nosync
//	kvbench ping readrandom ycsb-a --target quic://127.0.0.1:7400 --workers 64 --html report.html
//	kvbench ycsb-a --rate 20000 --duration 1m --verify
//
// Workloads run one after the other on the same keys. One that reads finds out first whether the
// keys are there and loads them if not. Progress goes to stderr, results to stdout.
//
// The environment speaks where a flag does not, with the names that kvd uses: KVD_TARGET for
// --target, or KVD_ADDR, the HOST:PORT of a node; KVD_KNOWN_NODES for --known-nodes.
//
// An embedded target is a directory that holds a database, is empty, or does not exist yet. One
// with files of another kind is left alone.
//
// Exit codes: 0 done, 1 failed (also when a verified read was wrong or operations failed), 2 wrong
// usage.
package main

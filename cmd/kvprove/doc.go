// Kvprove runs the programme of tests that look for lost, invented and silently wrong data, for as
// long as it is given, and says what it ran:
//
//	go run ./cmd/kvprove -budget=2h       # everything, for two hours
//	go run ./cmd/kvprove -only=crash      # one part
//	go run ./cmd/kvprove -museum          # every seeded bug must be caught
//
// It is run in the root of the source tree and needs the go command.
//
// A part is a test that `go test` runs in seconds and that goes on with fresh seeds when it has a
// -budget: see parts.go. Parts print figures ("proof: recoveries 123") that kvprove sums. With
// -record the sums become a line of docs/ledger.jsonl and docs/ledger.md is made anew from it.
//
// # The museum
//
// The tests are tested too. Each exhibit is a bug of a kind that databases have shipped, as an edit
// of the source: see exhibits_*.go. Kvprove hands the edited file to the compiler by `go test
// -overlay`, so the source itself has neither dead branches nor build tags, and runs the tests that
// must find it. An exhibit that is not found within its budget is a hole in the tests. The table of
// them is docs/museum.md.
package main

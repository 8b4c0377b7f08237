package metamorphic

import (
	"flag"
	"testing"
)

// budget lets the tests that search go on with fresh seeds for that long, each of them. 0 is their
// everyday form: a fixed, small amount of work.
var budget = flag.Duration("budget", 0, "time for each test that searches; 0 is the short form")

// count prints a figure that cmd/kvprove sums.
func count(t testing.TB, what string, n int64) {
	t.Helper()
	t.Logf("proof: %s %d", what, n)
}

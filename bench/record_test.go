package bench

import (
	"testing"
	"time"
)

// TestPercentilesOfLongOperations: what took longer than a minute, such as a scan of everything,
// was a minute in the percentiles, while mean and maximum had it as it was.
func TestPercentilesOfLongOperations(t *testing.T) {
	var r recorder
	r.reset()
	r.merge([]sample{{kind: Scan, took: int64(5 * time.Minute), end: int64(5 * time.Minute)}})
	p := time.Duration(r.kinds[Scan].took.ValueAtQuantile(50))
	if p < 299*time.Second || p > 301*time.Second {
		t.Errorf("p50 of an operation of five minutes is %v", p)
	}
}

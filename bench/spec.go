package bench

import (
	"fmt"
	"math"
	"time"
)

// Limits of a run. They bound what the runner itself needs.
const (
	MaxValueBytes = 8 << 20
	MaxWorkers    = 1 << 14
)

// Spec says what to run. Keys is required; the zero value of everything else works.
type Spec struct {
	Workload   string        // one of Workloads
	Keys       uint64        // loaded keys
	KeyBytes   int           // default 16
	ValueBytes int           // default 100
	Workers    int           // default 1
	Duration   time.Duration // of the measured part; a fill ends earlier when it is complete
	Ops        uint64        // operations of all workers together, instead of or beside Duration
	Rate       float64       // operations per second, started on time: the open loop; 0 = closed
	Warmup     time.Duration // run before measuring; fills have none
	ReadRatio  float64       // share of reads in mixed; default 0.5, negative = none
	ScanKeys   int           // pairs per scan; default 10
	Seed       uint64
	Ledger     *Ledger // not nil: verify every read against it

	Target     string // how the report calls the store
	Durability string // how the report calls the durability of writes
	Remote     bool   // the store runs in another process

	Progress func(Interval) // called about once per second from one goroutine
}

// resolve fills in the defaults and refuses what makes no sense.
func (s Spec) resolve() (Spec, Workload, error) {
	load, ok := WorkloadByName(s.Workload)
	if !ok {
		return s, load, fmt.Errorf("bench: no workload %q; there are: %s",
			s.Workload, WorkloadNames())
	}
	s.KeyBytes = orDefault(s.KeyBytes, DefaultKeyBytes)
	s.ValueBytes = orDefault(s.ValueBytes, 100)
	s.Workers = orDefault(s.Workers, 1)
	s.ScanKeys = orDefault(s.ScanKeys, 10)
	s.ReadRatio = max(0, orDefault(s.ReadRatio, 0.5))
	if err := s.check(); err != nil {
		return s, load, err
	}
	if load.Name == "mixed" {
		load.Share[Read], load.Share[Update] = s.ReadRatio, 1-s.ReadRatio
	}
	if load.ScanMax == 0 {
		load.ScanMin, load.ScanMax = s.ScanKeys, s.ScanKeys
	}
	if load.Fill {
		s.Warmup = 0
		s.Ops = min(orDefault(s.Ops, s.Keys), s.Keys)
	}
	if s.Ops == 0 && s.Duration == 0 {
		if load.ScanMax < 0 {
			s.Ops = uint64(s.Workers)
		} else {
			s.Duration = 10 * time.Second
		}
	}
	return s, load, nil
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func (s *Spec) check() error {
	switch {
	case s.ValueBytes < 0 || s.ValueBytes > MaxValueBytes:
		return fmt.Errorf("bench: value size %d out of bounds: 0 to %d bytes",
			s.ValueBytes, MaxValueBytes)
	case s.Workers < 0 || s.Workers > MaxWorkers:
		return fmt.Errorf("bench: %d workers out of bounds: 1 to %d", s.Workers, MaxWorkers)
	case s.Rate < 0 || math.IsNaN(s.Rate) || s.Rate > 1e9:
		return fmt.Errorf("bench: rate %v out of bounds: 0 to 1e9 per second", s.Rate)
	case s.ReadRatio > 1 || math.IsNaN(s.ReadRatio):
		return fmt.Errorf("bench: read ratio %v out of bounds: 0 to 1", s.ReadRatio)
	case s.ScanKeys < 1:
		return fmt.Errorf("bench: %d keys per scan: 1 is the least", s.ScanKeys)
	case s.Duration < 0 || s.Warmup < 0:
		return fmt.Errorf("bench: a duration is negative")
	case s.Ledger != nil && s.ValueBytes < ValueHeaderBytes:
		return fmt.Errorf("bench: values of %d bytes cannot be verified: %d is the least",
			s.ValueBytes, ValueHeaderBytes)
	case s.Ledger != nil && uint64(len(s.Ledger.issued)) != s.Keys:
		return fmt.Errorf("bench: ledger of %d keys for %d keys", len(s.Ledger.issued), s.Keys)
	case s.Ledger != nil && uint64(s.Workers) > s.Keys:
		return fmt.Errorf("bench: to verify, %d keys are too few for %d workers",
			s.Keys, s.Workers)
	}
	return nil
}

package main

import (
	"runtime/metrics"
	"syscall"
	"time"
)

// usage is processor time of this process, background work included.
type usage struct {
	cpu time.Duration
	gc  time.Duration // the part of it that the Go collector took
}

func usedNow() usage {
	collector := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}
	metrics.Read(collector)
	u := usage{cpu: processCPU()}
	if v := collector[0].Value; v.Kind() == metrics.KindFloat64 {
		u.gc = time.Duration(v.Float64() * float64(time.Second))
	}
	return u
}

func (u usage) plus(v usage) usage { return usage{u.cpu + v.cpu, u.gc + v.gc} }

func (u usage) minus(v usage) usage { return usage{u.cpu - v.cpu, u.gc - v.gc} }

// collectorPercent is the share of the collector. The runtime counts its pauses as if they kept all
// processors busy, so the share may exceed what it took by a little.
func (u usage) collectorPercent() float64 {
	return 100 * u.gc.Seconds() / max(u.cpu.Seconds(), 1e-9)
}

func processCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

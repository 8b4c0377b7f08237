package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"kvd/bench"
	"kvd/lsm"
)

// settings are the flags. They are fixed once parsed.
type settings struct {
	target     string
	keys, ops  countFlag
	keyBytes   int
	valueBytes int
	workers    int
	duration   time.Duration
	warmup     time.Duration
	rate       float64
	readRatio  float64
	scanKeys   int
	seed       uint64
	durability durabilityFlag
	verify     bool
	noLoad     bool
	json, html string
	cacheMB    int
	network    networkSettings
	r, w       levelFlag // of a cluster
}

func (s *settings) addTo(f *pflag.FlagSet) {
	s.keys = 1_000_000
	f.SortFlags = false
	f.StringVar(&s.target, "target", targetFromEnvironment(),
		"what to load: quic://HOST:PORT, cluster://HOST:PORT or embedded:DIR (KVD_TARGET, or "+
			"HOST:PORT in KVD_ADDR)")
	f.Var(&s.r, "r", "of a cluster: replicas that have to answer a read")
	f.Var(&s.w, "w", "of a cluster: replicas that have to hold a write")
	f.Var(&s.keys, "keys", "number of keys, like 500k or 10M")
	f.IntVar(&s.keyBytes, "key-size", 16, "bytes per key")
	f.IntVar(&s.valueBytes, "value-size", 100, "bytes per value")
	f.IntVar(&s.workers, "workers", 16, "operations under way at once")
	f.DurationVar(&s.duration, "duration", 0,
		"how long each workload runs (default 10s, unless --ops is given)")
	f.Var(&s.ops, "ops", "how many operations each workload makes, all workers together")
	f.Float64Var(&s.rate, "rate", 0, "operations to start per second, whether or not the store "+
		"keeps up; latency counts from then (default: as fast as it goes)")
	f.DurationVar(&s.warmup, "warmup", 0, "run each workload that long before measuring")
	f.Var(&s.durability, "durability", "what an acknowledged write survives: "+
		"sync (power loss), async (death of the process), nosync (a clean stop)")
	f.Float64Var(&s.readRatio, "read-ratio", 0.5, "share of reads in mixed")
	f.IntVar(&s.scanKeys, "scan-keys", 10, "pairs per scan")
	f.Uint64Var(&s.seed, "seed", 1, "decides keys, values and their order")
	f.BoolVar(&s.verify, "verify", false,
		"check every value read; fail on the first wrong or lost one")
	f.BoolVar(&s.noLoad, "no-load", false, "do not write keys that a workload wants to read, "+
		"nor count those as lost that were not there before")
	f.StringVar(&s.json, "json", "", "write the results to this file as JSON (- = stdout)")
	f.StringVar(&s.html, "html", "", "write the results to this file as a page with pictures")
	f.IntVar(&s.cacheMB, "cache", 64, "MiB of block cache of an embedded target")
	s.network.addTo(f)
}

// targetFromEnvironment is the target when no flag names one. KVD_ADDR is where kvd itself looks
// for its node.
func targetFromEnvironment() string {
	if target := os.Getenv("KVD_TARGET"); target != "" {
		return target
	}
	if addr := os.Getenv("KVD_ADDR"); addr != "" {
		return "quic://" + addr
	}
	return "quic://127.0.0.1:7400"
}

// check refuses what makes no sense, before anything is opened.
func (s *settings) check(workloads []string) error {
	switch {
	case s.keys == 0:
		return usagef("--keys: at least 1")
	case s.workers < 1:
		return usagef("--workers %d: at least 1", s.workers)
	case s.valueBytes < 0 || s.valueBytes > lsm.MaxValueBytes:
		return usagef("--value-size %d: 0 to %d bytes", s.valueBytes, lsm.MaxValueBytes)
	case s.duration < 0 || s.warmup < 0:
		return usagef("--duration and --warmup cannot be negative")
	case s.rate < 0 || s.readRatio < 0 || s.readRatio > 1:
		return usagef("--rate must not be negative, --read-ratio between 0 and 1")
	case s.scanKeys < 1:
		return usagef("--scan-keys %d: at least 1", s.scanKeys)
	case s.cacheMB < 0 || s.cacheMB > 1<<20:
		return usagef("--cache %d: 0 to %d MiB", s.cacheMB, 1<<20)
	}
	switch kind, where, _ := strings.Cut(s.target, ":"); {
	case kind == "embedded" && where != "":
		for _, name := range workloads {
			if w, _ := bench.WorkloadByName(name); w.Share[bench.Ping] > 0 {
				return usagef("%s needs a node: an embedded target cannot be pinged", name)
			}
		}
		return nil
	case (kind == "quic" || kind == "cluster") && strings.HasPrefix(where, "//"):
		host, port, err := net.SplitHostPort(where[2:])
		if _, e := net.LookupPort("udp", port); err == nil && e == nil && host != "" {
			return nil
		}
	}
	return usagef("--target %q: must be quic://HOST:PORT, cluster://HOST:PORT or embedded:DIR", s.target)
}

// durabilityFlag is --durability.
type durabilityFlag lsm.Durability

var durabilityNames = [...]string{lsm.Sync: "sync", lsm.Async: "async", lsm.NoSync: "nosync"}

func (d *durabilityFlag) Set(s string) error {
	for i, name := range durabilityNames {
		if s == name {
			*d = durabilityFlag(i)
			return nil
		}
	}
	return errors.New("must be sync, async or nosync")
}

func (d *durabilityFlag) String() string { return durabilityNames[*d] }
func (d *durabilityFlag) Type() string   { return "class" }

// countFlag is a number of things: 1000, 500k, 10M, 1e6.
type countFlag uint64

func (c *countFlag) Set(s string) error {
	number, factor := s, 1.0
	for suffix, f := range map[string]float64{"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9} {
		if cut, ok := strings.CutSuffix(s, suffix); ok {
			number, factor = cut, f
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	v *= factor
	if err != nil || v < 0 || v > 1<<53 || v != math.Trunc(v) {
		return fmt.Errorf("must be a whole number, like 1000, 500k or 10M")
	}
	*c = countFlag(v)
	return nil
}

func (c *countFlag) String() string {
	switch v := uint64(*c); {
	case v > 0 && v%1e6 == 0:
		return fmt.Sprintf("%dM", v/1e6)
	case v > 0 && v%1e3 == 0:
		return fmt.Sprintf("%dk", v/1e3)
	default:
		return fmt.Sprint(v)
	}
}

func (c *countFlag) Type() string { return "count" }

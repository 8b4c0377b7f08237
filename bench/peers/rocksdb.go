package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"kvd/bench"
)

func rocksdbEngine() *engine {
	return &engine{
		name: "rocksdb",
		acks: map[class]string{
			buffered: "manual_wal_flush: in the log's buffer until it is full",
			system:   "the operating system has the record: one write(2) per group",
			synced:   "fdatasync per group of writers",
		},
		skip: map[string]string{
			rowFillQuiet: "db_bench does not time it",

			rowLargeOverwrite + quietSuffix: "db_bench does not time it",
			rowSustained + quietSuffix:      "db_bench does not time it",

			rowZipfLeft:    "db_bench draws no Zipfian keys",
			rowZipfCompact: "db_bench draws no Zipfian keys",
		},
		run: runRocksDB,
	}
}

// dbBench is the name of RocksDB's own load generator on PATH.
const dbBench = "db_bench"

// runRocksDB drives db_bench through the same stages as runStore. Its keys are eight binary bytes
// and padding and its values come from its own generator, of the same sizes and about the same
// compressibility; it makes both inside its clock, as the harness here does.
func runRocksDB(s *session) error {
	if _, err := exec.LookPath(dbBench); err != nil {
		s.note("%s is not installed (Debian: rocksdb-tools)", dbBench)
		return nil
	}
	stages := []func(*session) error{
		rocksSequential, rocksSystem, rocksWriters, rocksTree, rocksSynced,
		rocksSustained,
	}
	switch {
	case s.Large:
		stages = []func(*session) error{rocksLarge}
	case s.Scale:
		stages = []func(*session) error{rocksScale}
	}
	for _, stage := range stages {
		if err := stage(s); err != nil {
			return err
		}
	}
	return nil
}

func rocksSequential(s *session) error {
	if !s.wants(rowFillSeq) {
		return nil
	}
	return s.rocksFill("fillseq", rowFillSeq, "--manual_wal_flush=1")
}

func rocksSystem(s *session) error {
	if !s.wants(rowFillSystem) {
		return nil
	}
	return s.rocksFill("filluniquerandom", rowFillSystem)
}

func rocksWriters(s *session) error {
	if !s.wants(rowManyWriters) {
		return nil
	}
	return s.rocksFill("fillrandom", rowManyWriters, "--manual_wal_flush=1", "--threads=16",
		fmt.Sprintf("--writes=%d", s.Keys/16))
}

func rocksSynced(s *session) error {
	for _, c := range []struct {
		row     string
		threads int
	}{{rowSyncOne, 1}, {rowSyncSixteen, 16}, {rowSyncMany, 256}} {
		if !s.wants(c.row) {
			continue
		}
		err := s.rocksFill("fillrandom", c.row, "--sync=1",
			fmt.Sprintf("--threads=%d", c.threads), s.seconds(s.Cell))
		if err != nil {
			return err
		}
	}
	return nil
}

// rocksFill runs one writing benchmark on a new directory.
func (s *session) rocksFill(benchmark, row string, flags ...string) error {
	dir := filepath.Join(s.Dir, row)
	defer os.RemoveAll(dir)
	cells, err := s.dbBench(dir, benchmark, flags...)
	if err != nil {
		return err
	}
	s.show(row, cells[0].rate)
	return nil
}

// rocksTree is stageTree. One process loads, reads what the load left, compacts and reads again;
// overwriting and reading beside a writer need other thread counts, so each opens the same
// directory anew.
func rocksTree(s *session) error {
	dir := filepath.Join(s.Dir, "tree")
	defer os.RemoveAll(dir)
	plan := []struct{ benchmark, row string }{
		{"filluniquerandom", rowFillRandom}, {"waitforcompaction", ""}, {"readtocache", ""},
		{"readrandom", rowReadLeft}, {"readmissing", rowMissLeft}, {"seekrandom", rowSeekLeft},
		{"compact", ""}, {"waitforcompaction", ""}, {"readtocache", ""},
		{"readrandom", rowReadCompact}, {"readmissing", rowMissCompact},
		{"seekrandom", rowSeekCompact}, {"readseq", rowScan},
	}
	var names, rowNames []string
	for _, p := range plan {
		names = append(names, p.benchmark)
		if p.row != "" {
			rowNames = append(rowNames, p.row)
		}
	}
	if !s.wants(append(append(rowNames, rowOverwrite, rowMissLastLevel), besideNames()...)...) {
		return nil
	}
	cells, err := s.dbBench(dir, strings.Join(names, ","), "--manual_wal_flush=1", "--threads=2",
		"--seek_nexts=10", s.seconds(s.Cell))
	if err != nil {
		return err
	}
	for _, p := range plan {
		if p.benchmark == "waitforcompaction" {
			continue // prints no figure
		}
		if len(cells) == 0 || cells[0].name != p.benchmark {
			return fmt.Errorf("peers: db_bench printed nothing for %s", p.benchmark)
		}
		s.show(p.row, cells[0].rate)
		if p.row == rowMissCompact {
			s.show(rowMissLastLevel, cells[0].rate) // its Get asks every filter anyway
		}
		cells = cells[1:]
	}
	s.fact(factDiskCompact, float64(diskBytes(dir))/1e6)
	return s.rocksChange(dir)
}

func (s *session) rocksChange(dir string) error {
	if s.wants(rowOverwrite) {
		cells, err := s.dbBench(dir, "overwrite", "--manual_wal_flush=1", "--use_existing_db=1")
		if err != nil {
			return err
		}
		s.show(rowOverwrite, cells[0].rate)
	}
	for _, b := range besides(s.Pace) {
		if !s.wants(b.all()...) {
			continue
		}
		bytesPerSecond := int64(b.pace * float64(bench.DefaultKeyBytes+s.ValueBytes))
		cells, err := s.dbBench(dir, "waitforcompaction,readrandom,readwhilewriting,stats",
			"--manual_wal_flush=1", "--use_existing_db=1", "--histogram=1", s.seconds(2*s.Cell),
			fmt.Sprintf("--benchmark_write_rate_limit=%d", bytesPerSecond))
		if err != nil {
			return err
		}
		c := cells[len(cells)-1]
		s.show(b.reads, c.rate)
		s.show(b.latency, c.percentile)
		s.show(b.tail, c.tail)
		if c.writes > 0 {
			s.show(b.writes, c.writes/c.seconds)
		}
	}
	return nil
}

func (s *session) seconds(d time.Duration) string {
	return fmt.Sprintf("--duration=%d", max(1, int(math.Ceil(d.Seconds()))))
}

// dbBench runs benchmarks in one process and returns what each printed.
func (s *session) dbBench(dir, benchmarks string, flags ...string) ([]dbBenchCell, error) {
	args := append([]string{
		"--benchmarks=" + benchmarks,
		"--db=" + dir,
		fmt.Sprintf("--num=%d", s.Keys),
		"--key_size=16",
		fmt.Sprintf("--value_size=%d", s.ValueBytes),
		fmt.Sprintf("--seed=%d", s.Seed),
		"--compression_type=snappy",
		"--compression_ratio=0.5",
		"--block_size=4096",
		"--bloom_bits=10",
		fmt.Sprintf("--cache_size=%d", s.CacheBytes),
		fmt.Sprintf("--write_buffer_size=%d", s.MemtableBytes),
		"--max_write_buffer_number=4",
		"--open_files=-1",
		"--max_background_jobs=2",
		"--level_compaction_dynamic_level_bytes=1",
	}, flags...)
	if err := os.MkdirAll(s.Dir, 0o755); err != nil { // db_bench makes the last part only
		return nil, err
	}
	var out, progress bytes.Buffer
	cmd := exec.Command(dbBench, args...)
	cmd.Stdout, cmd.Stderr = &out, &progress
	if err := cmd.Run(); err != nil {
		tail := progress.String()
		return nil, fmt.Errorf("peers: db_bench %s: %w: %s", benchmarks, err,
			tail[max(0, len(tail)-500):])
	}
	cells, warnings := parseDBBench(out.String())
	for _, w := range warnings {
		s.note("db_bench says: %s", w)
	}
	for _, c := range cells {
		if err := c.check(); err != nil {
			return nil, err
		}
	}
	if len(cells) == 0 {
		return nil, fmt.Errorf("peers: db_bench %s printed no figure", benchmarks)
	}
	return cells, nil
}

// dbBenchCell is what db_bench printed for one benchmark.
type dbBenchCell struct {
	name             string
	rate, seconds    float64
	found, looked    int64   // of "(found of looked found)", both -1 without
	percentile, tail float64 // p99 and p99.9 in microseconds
	longest          float64 // microseconds
	slow             float64 // operations that took longer than slowWrite
	writes           float64 // of the process until then, from "stats"
}

var (
	dbBenchLine = regexp.MustCompile(
		`^(\w+)\s*:\s+[\d.]+ micros/op (\d+) ops/sec ([\d.]+) seconds (\d+) operations`)
	dbBenchFound      = regexp.MustCompile(`\((\d+) of (\d+) found\)`)
	dbBenchPercentile = regexp.MustCompile(`P99: ([\d.]+) P99\.9: ([\d.]+)`)
	dbBenchLongest    = regexp.MustCompile(`^Min: .* Max: (\d+)`)
	dbBenchBucket     = regexp.MustCompile(`^[(\[]\s*(\d+),\s*\d+ \]\s+(\d+) `)
	dbBenchWrites     = regexp.MustCompile(`^Cumulative writes: (\d+)([KMG]?) writes`)
)

// parseDBBench reads the figures and the warnings of db_bench's output.
func parseDBBench(out string) (cells []dbBenchCell, warnings []string) {
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if w, ok := strings.CutPrefix(line, "WARNING: "); ok {
			warnings = append(warnings, w)
		}
		if m := dbBenchLine.FindStringSubmatch(line); m != nil {
			c := dbBenchCell{name: m[1], rate: number(m[2]), seconds: number(m[3])}
			if c.seconds > 0 { // the printed rate has no decimals
				c.rate = number(m[4]) / c.seconds
			}
			c.found, c.looked = -1, -1
			if f := dbBenchFound.FindStringSubmatch(line); f != nil {
				c.found, c.looked = int64(number(f[1])), int64(number(f[2]))
			}
			cells = append(cells, c)
			continue
		}
		if len(cells) == 0 {
			continue
		}
		last := &cells[len(cells)-1]
		if m := dbBenchPercentile.FindStringSubmatch(line); m != nil {
			last.percentile, last.tail = number(m[1]), number(m[2])
		}
		if m := dbBenchLongest.FindStringSubmatch(line); m != nil {
			last.longest = number(m[1])
		}
		m := dbBenchBucket.FindStringSubmatch(line)
		if m != nil && number(m[1]) >= micros(slowWrite) {
			last.slow += number(m[2])
		}
		if m := dbBenchWrites.FindStringSubmatch(line); m != nil {
			unit := map[string]float64{"": 1, "K": 1e3, "M": 1e6, "G": 1e9}[m[2]]
			last.writes = number(m[1]) * unit
		}
	}
	return cells, warnings
}

// check is the verification db_bench offers: how many keys its reads found.
func (c dbBenchCell) check() error {
	switch {
	case c.looked < 0:
		return nil
	case c.name == "readmissing" && c.found == 0:
		return nil
	case c.name != "readmissing" && c.found == c.looked:
		return nil
	}
	return fmt.Errorf("peers: db_bench %s found %d of %d", c.name, c.found, c.looked)
}

// number parses what a pattern of digits matched.
func number(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0
	}
	return f
}

package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machine says where and how the table was made.
type machine struct {
	CPU        string
	Cores      int
	MemoryGB   float64
	Kernel     string
	Go         string
	GOMAXPROCS int
	Build      string // settings of the binary that change speed
	Load       string // load average when the run began
	Versions   map[string]string
	WriteNanos float64 // what making one key and value costs the harness
	ReadNanos  float64 // what choosing and making one key costs
}

func describe(d *data) machine {
	m := machine{
		CPU:        field("/proc/cpuinfo", "model name"),
		Cores:      runtime.NumCPU(),
		Go:         runtime.Version(),
		GOMAXPROCS: runtime.GOMAXPROCS(0),
		Versions:   map[string]string{},
	}
	total := firstField(field("/proc/meminfo", "MemTotal"))
	if kb, err := strconv.ParseFloat(total, 64); err == nil {
		m.MemoryGB = kb / 1e6
	}
	m.Kernel = strings.TrimSpace(contents("/proc/sys/kernel/osrelease"))
	m.Load = strings.Join(strings.Fields(contents("/proc/loadavg"))[:1], " ")
	if info, ok := debug.ReadBuildInfo(); ok {
		var build []string
		for _, s := range info.Settings {
			if s.Key == "CGO_ENABLED" || s.Key == "GOAMD64" || s.Key == "-race" || s.Key == "-pgo" {
				build = append(build, s.Key+"="+s.Value)
			}
		}
		m.Build = strings.Join(build, " ")
		for _, e := range engines() {
			for _, dep := range info.Deps {
				if dep.Path == e.module {
					m.Versions[e.name] = dep.Version
				}
			}
		}
	}
	m.WriteNanos, m.ReadNanos = d.harnessNanos()
	return m
}

// harnessNanos measures what is inside the clock and not the engine's.
func (d *data) harnessNanos() (write, read float64) {
	const count = 200_000
	var key, value []byte
	start := time.Now()
	for i := range uint64(count) {
		n := d.space.Shuffled(i % d.keys)
		key = d.space.AppendKey(key[:0], n)
		value = d.values.Append(value[:0], n, 1)
	}
	write = float64(time.Since(start)) / count
	random := d.random(4000)
	start = time.Now()
	for range count {
		key = d.space.AppendKey(key[:0], d.space.Loaded(random.Uint64N(d.keys)))
	}
	return write, float64(time.Since(start)) / count
}

// pretouch makes the machine hand over bytes of memory, so that the first row of an engine does not
// pay for pages that a virtual machine has never touched, or has given back since they were freed.
// That doubled the time of the fastest first rows in some rounds. It takes at most half of what is
// available.
func pretouch(bytes int64) (int64, error) {
	kb, err := strconv.ParseInt(firstField(field("/proc/meminfo", "MemAvailable")), 10, 64)
	if err != nil {
		return 0, err
	}
	bytes = min(bytes, kb<<10/2)
	const chunk = 256 << 20
	var held [][]byte
	defer func() {
		for _, m := range held {
			_ = syscall.Munmap(m)
		}
	}()
	touched := int64(0)
	for ; touched < bytes; touched += chunk {
		m, err := syscall.Mmap(-1, 0, chunk, syscall.PROT_READ|syscall.PROT_WRITE,
			syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_POPULATE)
		if err != nil {
			return touched, fmt.Errorf("peers: touching memory: %w", err)
		}
		held = append(held, m)
	}
	return touched, nil
}

// busyTime is how long all cores together were busy since boot, in units of 10 ms.
func busyTime() time.Duration {
	fields := strings.Fields(contents("/proc/stat"))
	busy := int64(0)
	for i, f := range fields[1:min(9, len(fields))] { // cpu user nice system idle iowait irq ...
		if v, err := strconv.ParseInt(f, 10, 64); err == nil && i != 3 && i != 4 {
			busy += v
		}
	}
	return time.Duration(busy) * 10 * time.Millisecond
}

// residentMegabytes is the memory of this process.
func residentMegabytes() float64 {
	kb, err := strconv.ParseFloat(firstField(field("/proc/self/status", "VmRSS")), 64)
	if err != nil {
		return 0
	}
	return kb * 1024 / 1e6
}

// field is the value of the first line "name : value" of a file of /proc.
func field(path, name string) string {
	lines := bufio.NewScanner(strings.NewReader(contents(path)))
	for lines.Scan() {
		if k, v, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func contents(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}

func firstField(s string) string {
	f, _, _ := strings.Cut(s, " ")
	return f
}

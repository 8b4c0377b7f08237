// Wire measures one kvd daemon beside one Redis, both on one machine, with the same number of
// callers, keys of 16 bytes and values of 100, in turn, and prints one table of medians:
//
//	(cd ../.. && go build -o /tmp/kvd ./cmd/kvd) && go run ./wire -kvd /tmp/kvd
//
// It needs redis-server and redis-benchmark (Debian: redis-server, redis-tools) and Linux, whose
// /proc tells the processor time of a server.
//
// What is fair: every caller waits for its answer before it asks again; all keys are there and in
// memory (kvd: in its block cache, flushed before each round; Redis: always); a PUT is on the
// device before it is acknowledged (kvd Sync, Redis appendonly with appendfsync always), and both
// share one sync between callers that overlap; clients are processes of their own, warmed up for a
// tenth of the time; the order of the two turns from round to round.
//
// What is not, for kvd: it speaks TLS 1.3 in QUIC, in user space, Redis plain TCP. Redis keeps all
// data in memory and a GET of it touches nothing that persists; kvd looks into an ordered store
// that may be larger than memory.
//
// What is not, for Redis: kvd's callers share one connection, and requests that wait at the same
// time share a packet. redis-benchmark has a connection, and so a system call on both sides, for
// each request of each caller; with -P it would send several together, but so that a caller has
// several under way. The rows with many callers tell what kvd gains by this, the row with one
// caller what a request costs on either wire. A client of Redis that lets callers share a
// connection would do better than this table says.
//
// kvd's client calls netquic.KeepMonitorAwake and procs.Follow, as its daemon does. The latter
// gives a caller alone a fifth more durable PUTs, and 256 callers a tenth; other rows stay as they
// are.
//
// redis-benchmark is one thread of C with an event loop, which draws neither new values nor one
// goroutine per caller; kvd's client is what a Go program would use. Redis executes commands in one
// thread, kvd's daemon on all cores, so that with few cores its server and client compete. This is
// why the processor time per request is in the table: it is what a request costs, whoever waits.
//
// The processor time of a server comes in ticks of 10 ms and contains its background work. That of
// redis-benchmark is of the whole process, so it contains its start.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kvd/lsm/procs"
	"kvd/netquic"
)

const valueBytes = 100

var (
	kvdPath = flag.String("kvd", "kvd", "the kvd binary")
	length  = flag.Duration("for", 3*time.Second, "how long each measurement takes")
	rounds  = flag.Int("rounds", 3, "times that everything is measured; medians are printed")
	callers = flag.String("callers", "1,16,64,256", "callers, each with one request under way")
	keys    = flag.Int("keys", 20000, "keys, of 16 bytes, values of 100")
	dir     = flag.String("dir", "", "where the databases live (default: a temporary directory)")
)

// row is one line of the table.
type row struct {
	put     bool
	callers int
}

func (r row) String() string {
	if r.put {
		return "PUT, durable"
	}
	return "GET, cached"
}

// measured is one measurement. Processor time is per request.
type measured struct {
	PerSecond            float64
	P50, P99             time.Duration
	ServerCPU, ClientCPU time.Duration
}

// engine is one of the two.
type engine interface {
	// settle brings the data to where reads are meant to find it.
	settle(context.Context) error
	measure(context.Context, row) (measured, error)
	// check says whether what was measured was what was meant.
	check() error
	stop()
}

// named is an engine with its column.
type named struct {
	name   string
	column int
	engine
}

func main() {
	// The second signal ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	var err error
	if len(os.Args) == 2 && os.Args[1] == clientArg {
		netquic.KeepMonitorAwake() // as any client may that asks much
		go procs.Follow(ctx)       // likewise
		err = runClient(ctx, os.Stdin, os.Stdout)
	} else {
		flag.Parse()
		err = run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "wire:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	counts, err := parseCallers(*callers)
	if err != nil {
		return err
	}
	if *length <= 0 || *rounds < 1 || *keys < 1 || flag.NArg() > 0 {
		return errors.New("-for, -rounds and -keys must be above zero, and there are only flags")
	}
	temp, err := os.MkdirTemp(*dir, "wire")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	var engines []named
	for i, start := range []func(context.Context, string) (engine, error){startKVD, startRedis} {
		name := [...]string{"kvd", "Redis"}[i]
		e, err := start(ctx, temp)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		defer e.stop()
		engines = append(engines, named{name, i, e})
	}
	var rows []row
	for _, put := range []bool{false, true} {
		for _, n := range counts {
			rows = append(rows, row{put, n})
		}
	}
	results, err := measureAll(ctx, engines, rows)
	if err != nil {
		return err
	}
	return printTable(os.Stdout, rows, results)
}

// measureAll returns the measurements of each row, by column.
func measureAll(ctx context.Context, engines []named, rows []row) ([][2][]measured, error) {
	results := make([][2][]measured, len(rows))
	for round := range *rounds {
		for _, e := range engines {
			if err := e.settle(ctx); err != nil {
				return nil, fmt.Errorf("%s: %w", e.name, err)
			}
		}
		for i, r := range rows {
			for _, e := range engines {
				m, err := e.measure(ctx, r)
				if err == nil {
					err = e.check()
				}
				if err := cmp.Or(context.Cause(ctx), err); err != nil {
					return nil, fmt.Errorf("%s, %v, %d callers: %w", e.name, r, r.callers, err)
				}
				fmt.Fprintf(os.Stderr, "round %d: %-12v %4d callers  %-5s %8.0f/s  p99 %v\n",
					round+1, r, r.callers, e.name, m.PerSecond, m.P99)
				results[i][e.column] = append(results[i][e.column], m)
			}
		}
		slices.Reverse(engines)
	}
	return results, nil
}

func parseCallers(list string) (counts []int, err error) {
	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-callers %q: numbers above zero, by commas", list)
		}
		counts = append(counts, n)
	}
	return counts, nil
}

// median is the measurement with the median throughput, so that its figures belong together.
func median(all []measured) measured {
	sorted := slices.SortedFunc(slices.Values(all), func(a, b measured) int {
		return cmp.Compare(a.PerSecond, b.PerSecond)
	})
	return sorted[len(sorted)/2]
}

func printTable(w io.Writer, rows []row, results [][2][]measured) error {
	var b strings.Builder
	b.WriteString("| request | callers | kvd k/s | Redis k/s | kvd/Redis " +
		"| kvd p50, p99 µs | Redis p50, p99 µs | server CPU µs, kvd / Redis " +
		"| client CPU µs, kvd / Redis |\n" +
		"|---|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for i, r := range rows {
		k, o := median(results[i][0]), median(results[i][1])
		fmt.Fprintf(&b, "| %v | %d | %.1f | %.1f | %.2f | %d, %d | %d, %d | %s / %s | %s / %s |\n",
			r, r.callers, k.PerSecond/1000, o.PerSecond/1000, k.PerSecond/o.PerSecond,
			k.P50.Microseconds(), k.P99.Microseconds(),
			o.P50.Microseconds(), o.P99.Microseconds(),
			micros(k.ServerCPU), micros(o.ServerCPU), micros(k.ClientCPU), micros(o.ClientCPU))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func micros(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Microsecond), 'f', 1, 64)
}

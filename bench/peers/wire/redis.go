package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// redisEngine is a Redis, and how fast it was at each row.
type redisEngine struct {
	*server
	benchmark string
	rates     map[row]float64
}

func startRedis(ctx context.Context, temp string) (_ engine, err error) {
	path, err1 := exec.LookPath("redis-server")
	benchmark, err2 := exec.LookPath("redis-benchmark")
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("%w; install Redis 7 (Debian: redis-server, redis-tools)", err)
	}
	addr, err := freeAddr("tcp")
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(addr)
	data := filepath.Join(temp, "redis")
	if err := os.Mkdir(data, 0o755); err != nil {
		return nil, err
	}
	s, err := startServer(temp, "redis", addr, path, "--bind", host, "--port", port, "--dir", data,
		"--appendonly", "yes", "--appendfsync", "always", "--save", "")
	if err != nil {
		return nil, err
	}
	e := &redisEngine{s, benchmark, map[row]float64{}}
	var c net.Conn
	for range 100 {
		if c, err = net.Dial("tcp", addr); err == nil || ctx.Err() != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err == nil {
		err = errors.Join(preload(c), c.Close())
	}
	if err != nil {
		err = s.failed(err)
		e.stop()
		return nil, err
	}
	return e, nil
}

// preload writes the keys that redis-benchmark will draw, a thousand at a time.
func preload(c io.ReadWriter) error {
	in, value := bufio.NewReader(c), newValue()
	for batch := range slices.Chunk(numbers(*keys), 1000) {
		var b []byte
		for _, i := range batch {
			b = appendCommand(b, "SET", string(keyOf(i)), string(value))
		}
		if _, err := c.Write(b); err != nil {
			return err
		}
		for range batch {
			line, err := in.ReadString('\n')
			if err == nil && line != "+OK\r\n" {
				err = errors.New(strings.TrimSpace(line))
			}
			if err != nil {
				return fmt.Errorf("SET: %w", err)
			}
		}
	}
	return nil
}

func numbers(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// appendCommand appends a command in the protocol of Redis.
func appendCommand(b []byte, words ...string) []byte {
	b = fmt.Appendf(b, "*%d\r\n", len(words))
	for _, word := range words {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(word), word)
	}
	return b
}

// settle has nothing to do: Redis has everything in memory.
func (e *redisEngine) settle(context.Context) error { return nil }

// check fails if a GET found nothing: redis-benchmark counts that like an answer.
func (e *redisEngine) check() error {
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(appendCommand(nil, "INFO", "stats")); err != nil {
		return err
	}
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("INFO: %w", err)
		}
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "keyspace_misses:"); ok {
			if n != "0" {
				return fmt.Errorf("%s keys were not found", n)
			}
			return nil
		}
	}
}

// measure asks redis-benchmark, which wants to be told how many requests, not how long: shorter
// runs, which are also the warm-up, find out how fast it is.
func (e *redisEngine) measure(ctx context.Context, r row) (m measured, err error) {
	short := length.Seconds() / 10
	rate := e.rates[r]
	for n := max(rate*short, 200, 10*float64(r.callers)); ; n = rate * short {
		if m, err = e.once(ctx, r, int(n)); err != nil {
			return m, err
		}
		rate = m.PerSecond
		if n >= rate*short/2 {
			break
		}
	}
	m, err = e.once(ctx, r, max(int(rate*length.Seconds()), r.callers))
	e.rates[r] = m.PerSecond
	return m, err
}

// once runs redis-benchmark with n requests.
func (e *redisEngine) once(ctx context.Context, r row, n int) (m measured, err error) {
	command := "get"
	if r.put {
		command = "set"
	}
	cmd := exec.CommandContext(ctx, e.benchmark, "-h", "127.0.0.1", "-p", e.port(), "-P", "1",
		"-c", strconv.Itoa(r.callers), "-n", strconv.Itoa(n), "-d", strconv.Itoa(valueBytes),
		"-r", strconv.Itoa(*keys), "-t", command, "--csv")
	cmd.Stderr = os.Stderr
	before, err := e.cpu()
	if err != nil {
		return m, err
	}
	out, err := cmd.Output()
	if err != nil {
		return m, fmt.Errorf("redis-benchmark: %w", err)
	}
	after, err := e.cpu()
	if err != nil {
		return m, err
	}
	if m, err = parseCSV(out, command); err != nil {
		return m, fmt.Errorf("redis-benchmark: %w", err)
	}
	m.ServerCPU = (after - before) / time.Duration(n)
	m.ClientCPU = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()) / time.Duration(n)
	return m, nil
}

// parseCSV reads a line of redis-benchmark's --csv by the names above it.
func parseCSV(out []byte, command string) (m measured, err error) {
	lines, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
	if err != nil {
		return m, err
	}
	if len(lines) != 2 || !strings.EqualFold(lines[1][0], command) {
		return m, fmt.Errorf("no figures of %s in %q; it must be of Redis 7", command, out)
	}
	number := func(name string) float64 {
		i := slices.Index(lines[0], name)
		if i < 0 {
			err = errors.Join(err, fmt.Errorf("no column %s", name))
			return 0
		}
		v, e := strconv.ParseFloat(lines[1][i], 64)
		if e == nil && v < 0 {
			e = fmt.Errorf("%s is %v", name, v)
		}
		err = errors.Join(err, e)
		return v
	}
	m.PerSecond = number("rps")
	m.P50 = time.Duration(number("p50_latency_ms") * float64(time.Millisecond))
	m.P99 = time.Duration(number("p99_latency_ms") * float64(time.Millisecond))
	return m, err
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"kvd/lsm"
	"kvd/netquic"
	"kvd/replication"
)

// kvdEngine is a daemon and the client that loaded it.
type kvdEngine struct {
	*server
	client *replication.Client
	known  string
}

func startKVD(ctx context.Context, temp string) (_ engine, err error) {
	addr, err := freeAddr("udp")
	if err != nil {
		return nil, err
	}
	s, err := startServer(temp, "kvd", addr, *kvdPath, "serve", "--listen", addr, "--admin", "off",
		"--data", filepath.Join(temp, "kvd"))
	if err != nil {
		return nil, fmt.Errorf("%w; build it and name it with -kvd", err)
	}
	e := &kvdEngine{server: s, known: filepath.Join(temp, "known")}
	defer func() {
		if err != nil {
			err = s.failed(err)
			e.stop()
		}
	}()
	if e.client, err = dialKVD(addr, e.known); err != nil {
		return nil, err
	}
	for range 100 {
		if err = e.client.Ping(ctx); err == nil || ctx.Err() != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		return nil, err
	}
	value := newValue()
	return e, together(64, func(c int) error {
		for i := c; i < *keys; i += 64 {
			if err := e.client.Put(ctx, keyOf(i), value, lsm.Async); err != nil {
				return err
			}
		}
		return nil
	})
}

func dialKVD(addr, known string) (*replication.Client, error) {
	c, err := netquic.NewClient(addr, netquic.Options{KnownServers: known})
	if err != nil {
		return nil, err
	}
	return replication.NewClient(c, netquic.ErrInDoubt), nil
}

// settle flushes, so that reads of every round find the keys in cached blocks, not those of the
// later rounds in the memtable of the writes before.
func (e *kvdEngine) settle(ctx context.Context) error { return e.client.Flush(ctx) }

// check has nothing to do: the client fails at a key that is not there.
func (e *kvdEngine) check() error { return nil }

func (e *kvdEngine) stop() {
	e.server.stop()
	if e.client != nil {
		_ = e.client.Close()
	}
}

// measure lets another process of this program make the load, so that its processor time is that
// of the client alone.
func (e *kvdEngine) measure(ctx context.Context, r row) (m measured, err error) {
	self, err := os.Executable()
	if err != nil {
		return m, err
	}
	in, err := json.Marshal(task{Addr: e.addr, Known: e.known, Server: e.cmd.Process.Pid,
		Put: r.put, Callers: r.callers, Keys: *keys, For: *length})
	if err != nil {
		return m, err
	}
	cmd := exec.CommandContext(ctx, self, clientArg)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return m, fmt.Errorf("client: %w", err)
	}
	return m, json.Unmarshal(out, &m)
}

// clientArg, as the only argument, makes this program a client.
const clientArg = "as-client"

// task is what a client is to do.
type task struct {
	Addr, Known string
	Server      int // its process
	Put         bool
	Callers     int
	Keys        int
	For         time.Duration
}

// runClient reads a task and writes what it measured.
func runClient(ctx context.Context, in io.Reader, out io.Writer) error {
	var t task
	if err := json.NewDecoder(in).Decode(&t); err != nil {
		return err
	}
	c, err := dialKVD(t.Addr, t.Known)
	if err != nil {
		return err
	}
	m, err := t.measure(ctx, c)
	if err := errors.Join(err, c.Close()); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(m)
}

// measure makes the load twice: the first time, shorter, opens the connection and warms up.
func (t task) measure(ctx context.Context, c *replication.Client) (m measured, err error) {
	if _, _, err := t.load(ctx, c, t.For/10); err != nil {
		return m, err
	}
	server, err1 := processCPU(t.Server)
	client, err2 := ownCPU()
	times, took, err3 := t.load(ctx, c, t.For)
	clientAfter, err4 := ownCPU()
	serverAfter, err5 := processCPU(t.Server)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return m, err
	}
	n := time.Duration(len(times))
	slices.Sort(times)
	return measured{
		PerSecond: float64(len(times)) / took.Seconds(),
		P50:       times[len(times)/2],
		P99:       times[len(times)*99/100],
		ServerCPU: (serverAfter - server) / n,
		ClientCPU: (clientAfter - client) / n,
	}, nil
}

// load keeps every caller busy for a time and returns how long each request took.
func (t task) load(ctx context.Context, c *replication.Client, length time.Duration) (
	[]time.Duration, time.Duration, error) {
	value := newValue()
	times := make([][]time.Duration, t.Callers)
	began := time.Now()
	err := together(t.Callers, func(caller int) error {
		var key, dst []byte
		var err error
		for now := began; now.Sub(began) < length && err == nil; {
			key = fmt.Appendf(key[:0], keyFormat, rand.IntN(t.Keys))
			asked := time.Now()
			if t.Put {
				err = c.Put(ctx, key, value, lsm.Sync)
			} else if dst, err = c.Get(ctx, key, dst[:0]); len(dst) != valueBytes && err == nil {
				err = fmt.Errorf("%s has a value of %d bytes", key, len(dst))
			}
			now = time.Now()
			times[caller] = append(times[caller], now.Sub(asked))
		}
		return err
	})
	return slices.Concat(times...), time.Since(began), err
}

// together runs fn so many times at once.
func together(n int, fn func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = fn(i) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err // the others most likely say the same
		}
	}
	return nil
}

// keyFormat is that of redis-benchmark, of 16 bytes.
const keyFormat = "key:%012d"

func keyOf(i int) []byte { return fmt.Appendf(nil, keyFormat, i) }

// newValue is made like those of redis-benchmark, of 64 different characters at random.
func newValue() []byte {
	value := make([]byte, valueBytes)
	for i := range value {
		value[i] = byte('0' + rand.IntN(64))
	}
	return value
}

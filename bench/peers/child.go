package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// childVariable carries the config of a child process, which runs one session and prints its
// records on stdout, a JSON object per line.
const childVariable = "KVD_PEERS_SESSION"

// record is one thing a child says.
type record struct {
	Name  string  `json:",omitempty"` // a row or a fact
	Value float64 `json:",omitempty"`
	CPU   float64 `json:",omitempty"` // microseconds of processor per operation of a row
	GC    float64 `json:",omitempty"` // percent of that which the Go collector took
	Took  float64 `json:",omitempty"` // seconds, of a slow write
	Note  string  `json:",omitempty"`
}

// childMain runs the session named by the environment; false means this process is no child.
func childMain() bool {
	encoded, ok := os.LookupEnv(childVariable)
	if !ok {
		return false
	}
	if err := runChild([]byte(encoded), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
	return true
}

func runChild(encoded []byte, out io.Writer) error {
	var c config
	if err := json.Unmarshal(encoded, &c); err != nil {
		return err
	}
	if c.Pretouch > 0 {
		touched, err := pretouch(c.Pretouch)
		if err != nil {
			return err
		}
		r := record{Name: "touched MiB", Value: float64(touched >> 20)}
		return json.NewEncoder(out).Encode(r)
	}
	s, err := newSession(c)
	if err != nil {
		return err
	}
	lines := json.NewEncoder(out)
	say := func(r record) {
		if err := lines.Encode(r); err != nil {
			fmt.Fprintln(os.Stderr, "peers:", err)
		}
	}
	s.emit = say
	return s.engine.run(s)
}

// measured is what one engine gave in one round.
type measured struct {
	Engine string
	Round  int
	Keys   int
	Cells  map[string]float64 // rows and facts
	CPU    map[string]float64 // rows: microseconds of processor per operation
	GC     map[string]float64 // rows: percent of that which the Go collector took
	Notes  []string
	Failed string `json:",omitempty"`
}

func newMeasured(c config) measured {
	return measured{
		Engine: c.Engine, Round: c.Round, Keys: c.Keys,
		Cells: map[string]float64{}, CPU: map[string]float64{},
		GC: map[string]float64{},
	}
}

// runSession runs one engine for one round in a process of its own, so that neither memory nor the
// state of a garbage collector passes from one to the next. Touching memory is done there too: a
// process keeps the peak of the one it was forked from.
func runSession(ctx context.Context, c config, progress func(record),
) (_ measured, fail error) {
	m := newMeasured(c)
	program, err := os.Executable()
	if err != nil {
		return m, err
	}
	cmd := exec.CommandContext(ctx, program)
	explain := func(err error) error { return err }
	if c.Limit > 0 && c.Pretouch == 0 {
		if c.Group, err = newMemoryGroup(c.Limit); err != nil {
			return m, err
		}
		defer func() { fail = errors.Join(fail, c.Group.remove()) }()
		cmd, explain = c.Group.command(ctx, program), c.Group.explain
	}
	killable(cmd)
	encoded, err := json.Marshal(c)
	if err != nil {
		return m, err
	}
	cmd.Env = append(os.Environ(), childVariable+"="+string(encoded))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return m, err
	}
	start, busy := time.Now(), busyTime()
	if err := cmd.Start(); err != nil {
		return m, err
	}
	readErr := m.collect(out, progress)
	err = cmd.Wait()
	if err == nil {
		err = readErr
	}
	own := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	foreign := max(0, busyTime()-busy-own)
	m.Cells[factForeign] = 100 * foreign.Seconds() / time.Since(start).Seconds()
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		m.Cells[factPeak] = float64(u.Maxrss) * 1024 / 1e6
	}
	if err != nil {
		err = explain(err)
		m.Failed = err.Error()
	}
	return m, err
}

func (m *measured) collect(out io.Reader, progress func(record)) error {
	var watch hiccups
	defer watch.stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var r record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("peers: %s said %q: %w", m.Engine, lines.Text(), err)
		}
		if watch.hear(r, m.Cells) {
			continue
		}
		if r.Note != "" {
			m.Notes = append(m.Notes, r.Note)
		} else {
			m.Cells[r.Name] = r.Value
			if r.CPU > 0 {
				m.CPU[r.Name], m.GC[r.Name] = r.CPU, r.GC
			}
		}
		progress(r)
	}
	return lines.Err()
}

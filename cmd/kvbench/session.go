package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"kvd/bench"
	"kvd/lsm"
	"kvd/lsm/procs"
)

// store is a target with what a session needs to know about it. There are two: the engine in this
// process and a node.
type store interface {
	bench.Target
	bench.Reporter
	remote() bool
	// with is the same store, its writes acknowledged in another class. It is not to be closed.
	with(d lsm.Durability) bench.Target
}

func open(ctx context.Context, s *settings) (store, error) {
	if dir, ok := strings.CutPrefix(s.target, "embedded:"); ok {
		return openEmbedded(ctx, dir, lsm.Durability(s.durability), int64(s.cacheMB)<<20)
	}
	if addr, ok := strings.CutPrefix(s.target, "cluster://"); ok {
		return dialCluster(ctx, addr, s)
	}
	addr := strings.TrimPrefix(s.target, "quic://")
	return dialNode(ctx, addr, lsm.Durability(s.durability), &s.network)
}

// session runs workloads one after the other on one store.
type session struct {
	*settings
	store    store
	ledger   *bench.Ledger // nil without --verify
	progress *progress
	stderr   io.Writer
	report   bench.Report
}

// measure runs the workloads and writes the results, also those of a session cut short.
func measure(ctx context.Context, s *settings, names []string, stdout, stderr io.Writer) error {
	if _, err := bench.NewKeyspace(uint64(s.keys), s.keyBytes, s.seed); err != nil {
		return &usageError{err}
	}
	if s.verify && s.valueBytes < bench.ValueHeaderBytes {
		return usagef("--verify needs values of %d bytes or more", bench.ValueHeaderBytes)
	}
	st, err := open(ctx, s)
	if err != nil {
		return err
	}
	if st.remote() {
		go procs.Follow(ctx) // as a node does: both ends of a connection gain by it
	}
	m := &session{settings: s, store: st, progress: newProgress(stderr), stderr: stderr,
		report: bench.Report{Machine: bench.ReadMachine(), Results: []*bench.Result{}}}
	if s.verify {
		m.ledger = bench.NewLedger(uint64(s.keys), uint32(time.Now().Unix()))
	}
	for _, name := range names {
		if err = m.workload(ctx, name); err != nil {
			break
		}
	}
	err = errors.Join(err, st.Close())
	if len(m.report.Results) == 0 {
		return err
	}
	return errors.Join(m.write(stdout), err, m.failures())
}

// workload runs one workload, on loaded keys if it wants some.
func (m *session) workload(ctx context.Context, name string) error {
	spec := m.spec(name)
	if w, _ := bench.WorkloadByName(name); w.NeedsData && !m.noLoad {
		if err := m.load(ctx, spec); err != nil {
			return err
		}
	}
	m.progress.begin(name)
	result, err := bench.Run(ctx, m.store, spec)
	m.progress.end()
	if result != nil && (result.Ops() > 0 || result.Errors() > 0) {
		m.report.Results = append(m.report.Results, result)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (m *session) spec(name string) bench.Spec {
	ratio := m.readRatio
	if ratio == 0 {
		ratio = -1 // none at all; 0 would mean the default
	}
	return bench.Spec{
		Workload: name, Keys: uint64(m.keys), KeyBytes: m.keyBytes, ValueBytes: m.valueBytes,
		Workers: m.workers, Duration: m.duration, Ops: uint64(m.ops), Rate: m.rate,
		Warmup: m.warmup, ReadRatio: ratio, ScanKeys: m.scanKeys, Seed: m.seed,
		Ledger: m.ledger, Target: m.target, Durability: m.durability.String(),
		Remote: m.store.remote(), Progress: m.progress.interval,
	}
}

// load writes the keys if they are not there. The class of these writes does not matter: Settle
// makes them durable.
func (m *session) load(ctx context.Context, spec bench.Spec) error {
	there, err := bench.Loaded(m.store, spec)
	if err != nil {
		return fmt.Errorf("looking for the keys: %w", err)
	}
	if there {
		return nil
	}
	fmt.Fprintf(m.stderr, "%s reads keys that are not there: loading %s of them first "+
		"(--no-load leaves it)\n", spec.Workload, m.keys.String())
	name := spec.Workload
	spec.Workload, spec.Ops, spec.Duration, spec.Rate = "fillrandom", 0, 0, 0
	spec.Workers = max(spec.Workers, 16)
	if spec.Ledger != nil {
		spec.Workers = min(spec.Workers, int(min(spec.Keys, 1<<14)))
	}
	m.progress.begin("loading")
	result, err := bench.Run(ctx, m.store.with(lsm.Async), spec)
	m.progress.end()
	if err != nil {
		return fmt.Errorf("loading for %s: %w", name, err)
	}
	if n := result.Errors(); n > 0 {
		return fmt.Errorf("loading for %s: %d writes failed, the first: %s", name, n,
			result.FirstError)
	}
	return nil
}

// write puts the results where they were asked for.
func (m *session) write(stdout io.Writer) error {
	m.report.ComparePing()
	var err error
	switch m.json {
	case "-":
		return errors.Join(m.report.WriteJSON(stdout), writeFile(m.html, m.report.WriteHTML))
	default:
		err = writeFile(m.json, m.report.WriteJSON)
	}
	return errors.Join(m.report.WriteText(stdout), err, writeFile(m.html, m.report.WriteHTML))
}

func writeFile(name string, write func(io.Writer) error) error {
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// failures is an error when operations failed: a script should not take the figures for good.
func (m *session) failures() error {
	for _, r := range m.report.Results {
		if n := r.Errors(); n > 0 {
			return fmt.Errorf("%s: %d operations failed, the first: %s",
				r.Workload, n, r.FirstError)
		}
	}
	return nil
}

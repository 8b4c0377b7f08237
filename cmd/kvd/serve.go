package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kvd/lsm"
	"kvd/netquic"
	"kvd/replication"
)

// serveSettings are the settings of a node.
type serveSettings struct {
	data, listen, admin string
	memtable, cache     byteSize
	drain, scrub        time.Duration
	logLevel            string
	anyClient, anyAdmin bool
	withStdin           bool

	// Of a node of a cluster.
	id, cluster, tls, buckets string
	replicas                  int
}

func (p *program) serveCommand() *cobra.Command {
	s := serveSettings{memtable: 64 << 20, cache: 64 << 20}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a node until SIGTERM or SIGINT",
		Long: `Serve runs a node. The first start makes the data directory and, in its tls
directory, the key that clients know the node by. SIGTERM or SIGINT lets requests under way
finish and closes the database; a second one ends the process at once, which loses nothing that
was acknowledged as durable. A node waits up to a second for a directory and for ports in use, so
that one that was just killed can be replaced at once.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			err := fmt.Errorf("unknown command %q", args[0])
			if like := cmd.Root().SuggestionsFor(args[0]); len(like) > 0 {
				err = fmt.Errorf("%w; did you mean %q?", err, like[0])
			}
			return &usageError{err: err}
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.data, "data", "./kvd-data", "data directory")
	f.StringVar(&s.listen, "listen", defaultListen, "serve clients here, QUIC on this UDP port")
	f.StringVar(&s.admin, "admin", defaultAdmin,
		"metrics, health and profiles here, HTTP; off: none")
	f.Var(&s.memtable, "memtable",
		"size of one memtable; up to three hold writes, two more are kept for reuse")
	f.Var(&s.cache, "cache", "memory for data blocks of tables")
	f.DurationVar(&s.drain, "drain-timeout", 10*time.Second,
		"how long requests under way may take when the node stops")
	f.DurationVar(&s.scrub, "scrub-period", 7*24*time.Hour,
		"time within which everything on disk is read and checked, over and over; 0: never")
	f.StringVar(&s.logLevel, "log-level", "info", "debug, info, warn or error")
	f.BoolVar(&s.anyClient, "insecure-any-client", false,
		"listen beyond this machine although every client is let in")
	f.BoolVar(&s.anyAdmin, "insecure-any-admin", false,
		"show metrics and profiles to other machines, to all who reach the port")
	f.BoolVar(&s.withStdin, "with-stdin", false, "stop when stdin ends")
	_ = f.MarkHidden("with-stdin") // fails only for a flag that does not exist
	addClusterFlags(cmd, &s)
	p.addKnownNodesFlag(cmd)
	setting(f, "data", "listen", "admin", "memtable", "cache", "drain-timeout", "scrub-period",
		"log-level", "insecure-any-client", "insecure-any-admin")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if s.cluster != "" && p.origins["listen"] == originDefault {
			s.listen = "" // that of the list
		}
		if err := s.check(); err != nil {
			return err
		}
		return p.serve(cmd.Context(), s)
	}
	return cmd
}

// check refuses what cannot work before anything is touched.
func (s *serveSettings) check() error {
	if err := s.checkCluster(); err != nil {
		return err
	}
	if err := checkAddress("listen", s.listen); err != nil {
		return err
	}
	if s.admin != "off" {
		if err := checkAddress("admin", s.admin); err != nil {
			return err
		}
	}
	if s.cluster != "" {
		_, err := os.Stat(filepath.Join(s.tls, netquic.AuthorityCertFile))
		if errors.Is(err, fs.ErrNotExist) {
			return &usageError{err, tlsHint}
		}
	}
	const memtableMin, memtableMax, cacheMin = 64 << 10, 4 << 30, 64 << 10
	if s.memtable < memtableMin || s.memtable > memtableMax {
		return usagef("memtable %v: must be 64KiB to 4GiB", &s.memtable)
	}
	if s.cache != 0 && s.cache < cacheMin {
		return usagef("cache %v: must be 64KiB at least, or 0 for none", &s.cache)
	}
	if s.drain < 0 {
		return usagef("drain-timeout %v: must not be negative", s.drain)
	}
	if s.scrub < 0 {
		return usagef("scrub-period %v: must not be negative", s.scrub)
	}
	return s.checkReach()
}

// checkReach refuses ports that would be open to other machines, unless one insists.
func (s *serveSettings) checkReach() error {
	if s.cluster == "" && !s.anyClient && !netquic.IsLoopback(s.listen) {
		return usagef("%s can be reached from other machines and would let in every client there; "+
			"listen on 127.0.0.1, or say --insecure-any-client", s.listen)
	}
	if s.admin != "off" && !s.anyAdmin && !netquic.IsLoopback(s.admin) {
		return usagef("%s can be reached from other machines and would show metrics and profiles "+
			"to all there; take 127.0.0.1, or say --insecure-any-admin", s.admin)
	}
	return nil
}

// serve wires the node: engine, identity, transport, node, admin. It closes them in reverse.
func (p *program) serve(ctx context.Context, s serveSettings) (err error) {
	log, err := p.newLogger(s.logLevel)
	if err != nil {
		return err
	}
	if err := checkDataDir(s.data); err != nil {
		return err
	}
	h, before := newHealth(), newSuccession()
	a, err := take(ctx, before, func() (*admin, error) { return startAdmin(s.admin, h, log) })
	if err != nil {
		return err
	}
	defer func() { err = lastWord(errors.Join(err, a.close()), log) }()

	start := time.Now()
	db, err := take(ctx, before, func() (*lsm.DB, error) {
		return lsm.Open(s.data, lsm.Options{Logger: log, MemtableBytes: int64(s.memtable),
			CacheBytes: cacheOption(s.cache), ScrubPeriod: scrubOption(s.scrub)})
	})
	if err != nil {
		return fmt.Errorf("open %s: %w", s.data, err)
	}
	// Closed last of all: nothing reads or writes any more by then.
	defer func() { err = errors.Join(err, db.Close()) }()
	opened := time.Since(start)
	if s.cluster == "" {
		if err := replication.CheckUnowned(db); err != nil {
			return fmt.Errorf("open %s: %w", s.data, err)
		}
	}

	n, err := take(ctx, before, func() (*servedNode, error) { return s.listenOn(db, log) })
	if err != nil {
		return err
	}
	p.introduce(s.listen, n.server.Addr().String(), n.pin, log)
	a.show(newCollector(db, n))
	h.opened(db, n.node)

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if s.withStdin {
		go func() {
			_, _ = io.Copy(io.Discard, p.stdin) // ends when the process that started this one does
			stop()
		}()
	}
	served := make(chan error, 1)
	life, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	go func() { served <- n.serve(life) }()
	h.ready()
	log.Info("serving", "version", version(), "data", s.data, "listen",
		n.server.Addr().String(), "admin", a.addr(), "pin", n.pin.String(), "opened_in",
		opened.String())
	if err := p.greet(s, n.server.Addr().String(), a.addr(), opened); err != nil {
		log.Warn("cannot write to stdout", "error", err)
	}

	select {
	case err := <-served:
		return err // nobody asked it to stop
	case <-ctx.Done():
	}
	return drain(s, h, n, served, giveUp, log)
}

// lastWord logs that all was closed: what has stopped without it was cut short.
func lastWord(err error, log *slog.Logger) error {
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// introduce tells the clients of this user on this machine the node's key, so that a node set up
// anew at an address they know is not taken for somebody else. Other machines are told by people.
func (p *program) introduce(listen, addr string, pin netquic.Pin, log *slog.Logger) {
	if !netquic.IsLoopback(listen) {
		return
	}
	file, err := p.client.knownServers()
	if err == nil {
		err = netquic.Remember(file, addr, pin)
	}
	if err != nil {
		log.Warn("cannot leave the key of this node for its clients", "error", err)
	}
}

// drain ends the service: first the load balancer is told, then new requests are refused, those
// under way finish. What has not by the end of the time is given up: a write of a cluster would go
// on until its client's deadline.
func drain(s serveSettings, h *health, n *servedNode, served <-chan error, giveUp func(),
	log *slog.Logger) error {
	log.Info("stopping: no new requests from here on", "timeout", s.drain.String())
	h.drain()
	n.node.Drain()
	ctx, cancel := context.WithTimeout(context.Background(), s.drain)
	defer cancel()
	defer context.AfterFunc(ctx, giveUp)()
	if err := n.server.Shutdown(ctx); err != nil {
		log.Warn("some requests were cut off", "error", err)
	}
	err := <-served
	log.Info("closing the database")
	return err
}

// cacheOption turns "no cache" into the engine's word for it.
func cacheOption(size byteSize) int64 {
	if size == 0 {
		return -1
	}
	return int64(size)
}

// scrubOption turns "never" into the engine's word for it.
func scrubOption(period time.Duration) time.Duration {
	if period == 0 {
		return -1
	}
	return period
}

// checkDataDir refuses a directory that holds something else: nothing of ours is ever put beside
// other people's files.
func checkDataDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	foreign := ""
	for _, e := range entries {
		name := e.Name()
		switch {
		case name == "CURRENT":
			return nil // the engine knows its own
		case name == "tls", name == "LOCK", name == "lost+found",
			strings.HasPrefix(name, "MANIFEST-"), strings.HasSuffix(name, ".tmp"),
			strings.HasSuffix(name, ".wal"), strings.HasSuffix(name, ".sst"):
		default:
			foreign = name
		}
	}
	if foreign != "" {
		return fmt.Errorf("%s is not empty and not a data directory of kvd (it has %s); "+
			"give another one with --data", dir, foreign)
	}
	return nil
}

// newLogger logs as text to a terminal and as JSON elsewhere, one object per line.
func (p *program) newLogger(level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("log-level %q: must be debug, info, warn or error", level)
	}
	o := &slog.HandlerOptions{Level: l}
	if isTerminal(p.stderr) {
		return slog.New(slog.NewTextHandler(p.stderr, o)), nil
	}
	return slog.New(slog.NewJSONHandler(p.stderr, o)), nil
}

// readyLine is what a node says on stdout with -o json once it serves.
type readyLine struct {
	Ready         bool    `json:"ready"`
	Listen        string  `json:"listen"`
	Admin         string  `json:"admin"`
	Data          string  `json:"data"`
	OpenedSeconds float64 `json:"opened_seconds"`
}

// greet tells whoever started the node what to try next.
func (p *program) greet(s serveSettings, listen, admin string, opened time.Duration) error {
	if p.output == outputJSON {
		return p.printJSON(readyLine{true, listen, admin, s.data, opened.Seconds()})
	}
	addr := ""
	if listen != defaultListen {
		addr = " --addr " + listen
	}
	if s.cluster != "" {
		addr += " --tls " + s.tls
		if s.wantsCertificates() {
			addr += " --cert NAME"
		}
	}
	_, err := fmt.Fprintf(p.stdout, `kvd serves %s at %s (admin: %s). Try, in another terminal:

  kvd put greeting 'hello, world'%s
  kvd get greeting%s
  kvd status%s

`, s.data, listen, admin, addr, addr, addr)
	return err
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"kvd/lsm"
	"kvd/lsm/vfs"
	"kvd/netquic"
	"kvd/replication"
)

var (
	kills = flag.Int("kills", 0, "how often TestProcessDeaths kills nodes by SIGKILL, at least")
	seed  = flag.Uint64("seed", 0, "seed of what the tests of processes choose; 0 draws one. "+
		"The moments that signals arrive are not repeatable")
)

// drawSeed returns the seed of a test and has it told if the test fails.
func drawSeed(t *testing.T) uint64 {
	s := *seed
	for s == 0 {
		s = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat the choices by: go test ./cmd/kvd -run '^%s$' -seed=%d", t.Name(), s)
		}
	})
	return s
}

// lane is a node that is started and ended again and again, and what is known of its contents.
// Lanes run beside each other.
type lane struct {
	t      *testing.T
	r      *rand.Rand
	dir    string // data is below, and what is not the node's
	data   string
	listen string
	args   []string // more flags of the node
	rec    *record
	choose func(r *rand.Rand, w *writerRecord) (lsm.Durability, []change)

	node     *runningNode
	measured bool
	lasting  *netquic.Client // one connection through all lives of the node
	clients  []*replication.Client
	load     *load

	tally
}

// tally is what a lane has done.
type tally struct {
	kills, terms, stops, fills, acked, reads, lost, verified, checkpoints int64

	ready, healed []time.Duration
	rssMax        int64 // bytes
	descriptors   int
	events        map[string]int64 // deaths by name
}

func newLane(t *testing.T, seed uint64, writers, keys int) *lane {
	l := &lane{t: t, r: rand.New(rand.NewPCG(seed, 7)), dir: t.TempDir(), choose: chooseMixed,
		rec: newRecord(writers, keys), tally: tally{events: map[string]int64{}}}
	l.data = filepath.Join(l.dir, "data")
	// A port below those that the system gives out by itself, so that nobody else gets it while
	// the node is down.
	for l.listen == "" {
		addr := net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 20000 + rand.IntN(12000)}
		if c, err := net.ListenUDP("udp", &addr); err == nil {
			l.listen = addr.String()
			_ = c.Close() // it was opened to see whether it is free
		}
	}
	t.Cleanup(l.clear)
	return l
}

// clear ends what a failed test leaves.
func (l *lane) clear() {
	if l.node != nil {
		_ = l.node.cmd.Process.Kill()
		_ = l.node.cmd.Wait()
	}
	l.hangUp()
	if l.lasting != nil {
		_ = l.lasting.Close()
	}
}

func (l *lane) nodeArgs() []string {
	return append([]string{"serve", "-o", "json", "--data", l.data, "--listen", l.listen,
		"--admin", "off"}, l.args...)
}

func (l *lane) log() string { return filepath.Join(l.dir, "log") }

// readyMax is when a node that does not start hangs. One with little data takes milliseconds, but a
// busy disk may keep every process of a machine waiting for most of a minute.
const readyMax = 3 * time.Minute

// open starts the node and connects.
func (l *lane) open() {
	l.t.Helper()
	if err := l.tryOpen(); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lane) tryOpen() error {
	_ = os.Remove(l.log()) // only the present life is of interest
	began := time.Now()
	n, err := startNode(l.nodeArgs(), l.log())
	if err != nil {
		return err
	}
	l.node, l.measured = n, false
	l.ready = append(l.ready, time.Since(began))
	if took := time.Since(began); took > readyMax {
		return fmt.Errorf("the node took %v to start", took)
	}
	return l.dial()
}

func (l *lane) dial() error {
	pin, err := netquic.ReadPin(filepath.Join(l.data, "tls", netquic.CertFile))
	if err != nil {
		return err
	}
	o := netquic.Options{Pin: pin}
	if l.lasting == nil {
		if l.lasting, err = netquic.NewClient(l.listen, o); err != nil {
			return err
		}
	}
	// The first one outlives the node. It is never closed through this.
	l.clients = []*replication.Client{replication.NewClient(l.lasting, netquic.ErrInDoubt)}
	for range 2 {
		c, err := netquic.NewClient(l.listen, o)
		if err != nil {
			return err
		}
		l.clients = append(l.clients, replication.NewClient(c, netquic.ErrInDoubt))
	}
	return nil
}

func (l *lane) hangUp() {
	for i, c := range l.clients {
		if i > 0 {
			_ = c.Close() // its node is gone
		}
	}
	l.clients = nil
}

// check compares what is in the node with what is known.
func (l *lane) check(orderly bool) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), readyMax)
	defer cancel()
	there, err := contents(ctx, l.r, l.clients[1], l.rec)
	if err != nil {
		l.t.Fatal(err)
	}
	lost, err := l.rec.settle(there, orderly)
	if err != nil {
		l.t.Fatal(err)
	}
	l.lost += int64(lost)
	// The old connection finds out by the first answer that its node is another process now.
	err = l.clients[0].Ping(ctx)
	if err != nil {
		err = l.clients[0].Ping(ctx)
	}
	if err != nil {
		l.t.Fatalf("a client of the node as it was before does not reach it: %v", err)
	}
}

// work lets clients loose on the node.
func (l *lane) work(readers int) *load {
	l.load = &load{t: l.t, rec: l.rec, clients: l.clients, choose: l.choose}
	l.load.start(l.r, readers)
	return l.load
}

// rest ends the work.
func (l *lane) rest() {
	if l.load != nil {
		l.load.end()
		l.acked += l.load.acked.Load()
		l.reads += l.load.reads.Load()
		l.load = nil
	}
}

// ended is called when the process is dead: the clients stop, the log is looked through, and the
// data directory is verified.
func (l *lane) ended() {
	l.t.Helper()
	l.node = nil
	l.rest()
	l.hangUp()
	l.readLog()
	l.verify()
	if l.t.Failed() {
		l.t.FailNow()
	}
}

// readLog looks for what a node must never say.
func (l *lane) readLog() {
	l.t.Helper()
	text, err := os.ReadFile(l.log())
	if err != nil {
		l.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		for _, bad := range []string{"panic", "DATA RACE", "fatal error", `"level":"ERROR"`} {
			if strings.Contains(line, bad) && !strings.Contains(line, "no space left on device") {
				l.t.Fatalf("the node said: %.4000s", text)
			}
		}
	}
}

// verify reads every byte of the data directory. Now and then the command does, which does the
// same in a process of its own.
func (l *lane) verify() {
	l.t.Helper()
	_, err := os.Stat(filepath.Join(l.data, "CURRENT"))
	if errors.Is(err, os.ErrNotExist) && len(l.ready) == 0 {
		return // killed before there was a database
	}
	l.verified++
	if l.verified%8 == 0 {
		out, err := exec.Command("kvd", "debug", "verify", "--data", l.data).CombinedOutput()
		if err != nil {
			l.t.Fatalf("%v: %s", err, out)
		}
		return
	}
	v, err := lsm.Verify(vfs.OS, l.data, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, d := range v.Damages {
		l.t.Errorf("damaged: %v", d)
	}
}

// measure checks what the process uses of the machine, once in a life, before its end begins.
func (l *lane) measure() {
	l.t.Helper()
	if l.measured {
		return
	}
	l.measured = true
	proc := fmt.Sprintf("/proc/%d/", l.node.cmd.Process.Pid)
	status, err := os.ReadFile(proc + "status")
	if errors.Is(err, os.ErrNotExist) && runtime.GOOS != "linux" {
		return
	}
	if err != nil {
		l.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kib, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	rss, err := strconv.ParseInt(kib, 10, 64)
	if err != nil {
		l.t.Fatalf("VmRSS: %v", err)
	}
	open, err := os.ReadDir(proc + "fd")
	if err != nil {
		l.t.Fatal(err)
	}
	files, err := os.ReadDir(l.data)
	if err != nil {
		l.t.Fatal(err)
	}
	l.rssMax = max(l.rssMax, rss<<10)
	l.descriptors = max(l.descriptors, len(open))
	if rss<<10 > rssMax {
		l.t.Errorf("the node uses %d MiB of memory, more than %d", rss>>10, rssMax>>20)
	}
	// A file each, streams, sockets and what the runtime needs. Tables that a compaction has
	// replaced are open and have no name for a moment.
	if limit := 2*len(files) + 40; len(open) > limit {
		l.t.Errorf("the node has %d files open, its directory %d", len(open), len(files))
	}
}

// awaitExit waits for the end of the process and returns its exit code, below zero for a signal.
func (l *lane) awaitExit() int {
	err := l.node.cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		l.t.Errorf("wait for the node: %v", err)
	}
	return 0
}

func (l *lane) signal(s syscall.Signal) {
	l.measure()
	if err := l.node.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		l.t.Errorf("%v: %v", s, err)
	}
	switch s {
	case syscall.SIGKILL:
		l.kills++
	case syscall.SIGTERM:
		l.terms++
	case syscall.SIGSTOP:
		l.stops++
	}
}

// await polls until done says so, for half a minute, which is far above what anything here takes. It
// counts polls and not time, of which a machine that is suspended loses any amount.
func (l *lane) await(done func() bool) bool {
	for range 300_000 {
		if done() {
			return true
		}
		if l.t.Failed() {
			return false
		}
		time.Sleep(100 * time.Microsecond)
	}
	return false
}

// pause sleeps up to d, for a random moment.
func (l *lane) pause(d time.Duration) { time.Sleep(time.Duration(l.r.Int64N(int64(d)))) }

// report prints what a lane has done.
func (l *lane) report() {
	l.t.Helper()
	count(l.t, "kills", l.kills)
	count(l.t, "terms", l.terms)
	count(l.t, "stops", l.stops)
	count(l.t, "acknowledged writes", l.acked)
	if l.fills > 0 {
		count(l.t, "disk fills", l.fills)
		l.t.Logf("writes went on after %v (median) to %v with room", percentile(l.healed, 50),
			percentile(l.healed, 100))
	}
	ready := percentile(l.ready, 50)
	names, _ := json.Marshal(l.events)
	l.t.Logf("lives %d, ready after %v (median) to %v, %d MiB and %d descriptors at most; %d reads, "+
		"%d unsynced writes lost as they may, %d directories verified, %d checkpoints; %s",
		len(l.ready), ready, percentile(l.ready, 100), l.rssMax>>20, l.descriptors, l.reads, l.lost,
		l.verified, l.checkpoints, names)
}

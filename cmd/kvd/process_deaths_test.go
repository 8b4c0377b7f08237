package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A death is a way for the process of a node to end. It returns whether that was in order.
type death struct {
	name   string
	weight int
	die    func(l *lane) (orderly bool)
}

var deaths = []death{
	{"kill", 60, (*lane).dieKilled},
	{"kill amid maintenance", 8, (*lane).dieMaintained},
	{"kill at rest", 1, (*lane).dieAtRest},
	{"term", 6, (*lane).dieInOrder},
	{"term and kill", 6, (*lane).dieDraining},
	{"term twice", 4, (*lane).dieHurried},
	{"stop, go on, kill", 6, (*lane).diePaused},
	{"kill while stopped", 4, (*lane).dieStopped},
}

// TestProcessDeaths ends nodes in all ways that a process can end, at random moments, under load.
// After every start all that was acknowledged is there, nothing is there that nobody wrote, and
// every byte on disk is sound.
func TestProcessDeaths(t *testing.T) {
	s := drawSeed(t)
	began := time.Now()
	var killed atomic.Int64
	for i := range lanes {
		t.Run(fmt.Sprintf("lane%d", i), func(t *testing.T) {
			t.Parallel()
			l := newLane(t, s+uint64(i), 6, groupKeys+40)
			defer l.report()
			orderly := true
			// Every way once, each lane its share of them.
			for j := i; j < len(deaths); j += lanes {
				before := l.kills
				orderly = l.live(&deaths[j], orderly)
				killed.Add(l.kills - before)
			}
			for killed.Load() < int64(*kills) || time.Since(began) < *budget {
				before := l.kills
				orderly = l.live(l.chooseDeath(), orderly)
				killed.Add(l.kills - before)
			}
			l.open()
			l.check(orderly)
			if !l.dieInOrder() {
				t.Error("a node without load does not stop in order")
			}
			l.ended()
		})
	}
}

func (l *lane) chooseDeath() *death {
	total := 0
	for i := range deaths {
		total += deaths[i].weight
	}
	pick := l.r.IntN(total)
	for i := range deaths {
		if pick -= deaths[i].weight; pick < 0 {
			return &deaths[i]
		}
	}
	panic("unreachable")
}

// live is one life of a node.
func (l *lane) live(d *death, orderly bool) bool {
	// Small memtables, so that flushes and compactions are killed too.
	l.args = []string{"--memtable", fmt.Sprintf("%dKiB", 64<<l.r.IntN(3)),
		"--cache", fmt.Sprintf("%dKiB", l.r.IntN(3)*512)}
	for l.r.IntN(5) == 0 {
		l.killWhileOpening()
		orderly = false // and if it was before: nothing but NoSync writes may be lost by that
	}
	l.open()
	l.check(orderly)
	l.events[d.name]++
	orderly = d.die(l)
	l.ended()
	return orderly
}

// killWhileOpening kills a node at some moment of its start: recovery itself must survive it.
func (l *lane) killWhileOpening() {
	cmd := exec.Command("kvd", l.nodeArgs()...)
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.pause(30 * time.Millisecond)
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	l.kills++
	l.events["kill while opening"]++
	l.verify()
}

// loadFor is how long clients work at most before something happens.
const loadFor = 150 * time.Millisecond

func (l *lane) dieKilled() bool {
	l.work(2)
	l.pause(loadFor)
	l.signal(syscall.SIGKILL)
	l.awaitExit()
	return false
}

// dieMaintained dies while it flushes, compacts or makes a checkpoint for somebody.
func (l *lane) dieMaintained() bool {
	w := l.work(1)
	client := l.clients[2]
	for range 1 + l.r.IntN(3) {
		var do func() error
		switch l.r.IntN(4) {
		case 0:
			do = func() error { return client.Flush(w.ctx) }
		case 1:
			do = func() error { return client.Compact(w.ctx, nil, nil) }
		default:
			l.checkpoints++
			dir := filepath.Join(l.dir, fmt.Sprintf("checkpoint%d", l.checkpoints))
			do = func() error { return w.checkpoint(client, dir) }
		}
		w.wg.Go(func() {
			if err := do(); err != nil && !endOfNode(err) {
				l.t.Errorf("maintenance: %v", err)
			}
		})
		l.pause(loadFor / 2)
	}
	l.signal(syscall.SIGKILL)
	l.awaitExit()
	return false
}

// dieAtRest dies a while after the last write, which is then with the operating system, however
// it was written: half a second is a hundred times what the log waits.
func (l *lane) dieAtRest() bool {
	w := l.work(1)
	l.pause(loadFor)
	w.end()
	time.Sleep(500 * time.Millisecond)
	l.signal(syscall.SIGKILL)
	l.awaitExit()
	return true
}

// dieInOrder stops by SIGTERM. Whoever has the patience gets an answer that is in no doubt.
func (l *lane) dieInOrder() bool {
	l.t.Helper()
	w := &load{t: l.t, rec: l.rec, clients: l.clients, choose: l.choose, patient: true}
	w.start(l.r, 2)
	l.load = w
	l.pause(loadFor)
	l.signal(syscall.SIGTERM)
	if code := l.awaitExit(); code != exitDone {
		l.t.Errorf("the node ends with %d after SIGTERM", code)
	}
	w.end()
	if n := w.doubts.Load(); n > 0 {
		l.t.Errorf("%d writes in doubt after an orderly stop", n)
	}
	return true
}

// dieDraining is killed while it stops in order, or just after.
func (l *lane) dieDraining() bool {
	l.work(2)
	l.pause(loadFor)
	l.signal(syscall.SIGTERM)
	l.pause(15 * time.Millisecond)
	l.signal(syscall.SIGKILL)
	return l.awaitExit() == exitDone
}

// dieHurried gets a second SIGTERM, which ends it at once.
func (l *lane) dieHurried() bool {
	l.work(2)
	l.pause(loadFor)
	l.signal(syscall.SIGTERM)
	l.pause(15 * time.Millisecond)
	l.signal(syscall.SIGTERM)
	code := l.awaitExit()
	if code != exitDone && code != exitFailed {
		l.t.Errorf("the node ends with %d after two SIGTERM", code)
	}
	return code == exitDone
}

// diePaused is stopped and goes on, as on a machine that swaps or a virtual one that moves: its
// clients run out of time, and afterwards they are served again.
func (l *lane) diePaused() bool {
	w := l.work(2)
	for range 1 + l.r.IntN(2) {
		l.pause(loadFor)
		l.signal(syscall.SIGSTOP)
		l.pause(stopFor(l))
		l.signal(syscall.SIGCONT)
		l.awaitProgress(w)
	}
	l.pause(loadFor)
	if l.r.IntN(3) == 0 {
		l.signal(syscall.SIGTERM)
		return l.awaitExit() == exitDone
	}
	l.signal(syscall.SIGKILL)
	l.awaitExit()
	return false
}

// stopFor is how long a node is stopped at most: short most often, and now and then some seconds.
func stopFor(l *lane) time.Duration {
	if l.r.IntN(8) == 0 && *budget > 0 {
		return 3 * time.Second
	}
	return 300 * time.Millisecond
}

// awaitProgress waits until a write is acknowledged.
func (l *lane) awaitProgress(w *load) {
	l.t.Helper()
	before := w.acked.Load()
	if !l.await(func() bool { return w.acked.Load() > before }) {
		l.t.Errorf("no write is acknowledged any more")
	}
}

// dieStopped is killed while it is stopped.
func (l *lane) dieStopped() bool {
	l.work(2)
	l.pause(loadFor)
	l.signal(syscall.SIGSTOP)
	l.pause(150 * time.Millisecond)
	l.signal(syscall.SIGKILL)
	l.awaitExit()
	return false
}

// A node that was started milliseconds after another one was killed said that its directory or its
// port was in use: the kernel was still cleaning up behind the dead one.
func TestStartBesideDyingNode(t *testing.T) {
	l := newLane(t, drawSeed(t), 1, groupKeys+1)
	l.args = []string{"--admin", l.listen} // the same number, in TCP
	l.open()
	l.hangUp()
	dying := l.node
	time.AfterFunc(300*time.Millisecond, func() { _ = dying.cmd.Process.Kill() })
	l.open()
	if err := dying.cmd.Wait(); err == nil {
		t.Error("the node that was killed ended in order")
	}
	l.check(true)
	l.signal(syscall.SIGKILL)
	l.awaitExit()
	l.ended()
}

// The second of two interrupts ended the demo before it had removed its node and its files.
func TestDemoInterruptedTwice(t *testing.T) {
	temp := t.TempDir()
	cmd := exec.Command("kvd", "demo", "--write-for", "1m", ".")
	cmd.Env = append(withoutSettings(os.Environ()), "TMPDIR="+temp)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil { // a node runs
		t.Fatal(err)
	}
	for range 2 {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != exitFailed {
		t.Errorf("an interrupted demo ends with %v", err)
	}
	left, err := os.ReadDir(temp)
	if err != nil || len(left) > 0 {
		t.Errorf("the demo left %v, %v", left, err)
	}
}

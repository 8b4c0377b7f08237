package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kvd/lsm"
	"kvd/netquic"
	"kvd/replication"
)

var kills = flag.Int("kills", 5, "how often TestKillLoop kills the node")

// killedNode is a real node that a test kills again and again, and what is known of its contents.
type killedNode struct {
	t       *testing.T
	dir     string
	r       *rand.Rand
	node    *runningNode
	client  *replication.Client
	writers [8]killWriter
}

// killWriter owns some keys: nobody else writes them.
type killWriter struct {
	r       *rand.Rand
	known   map[string]string // what was acknowledged; a deleted key is absent
	pending map[string]string // what was under way at the kill; "" is a delete
	acked   int
}

// TestKillLoop kills a node under synced writes at random moments. After every restart all that
// was acknowledged is there, nothing is there that nobody wrote, and every byte on disk is sound.
func TestKillLoop(t *testing.T) {
	seed := rand.Uint64()
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	k := &killedNode{t: t, dir: t.TempDir(), r: rand.New(rand.NewPCG(seed, 3))}
	for i := range k.writers {
		k.writers[i] = killWriter{r: rand.New(rand.NewPCG(seed, uint64(100+i))),
			known: map[string]string{}, pending: map[string]string{}}
	}
	for kill := range *kills {
		if k.r.IntN(4) == 0 {
			k.killWhileOpening()
		}
		k.start()
		k.check(kill)
		k.writeUntilKilled()
		k.verify(kill)
	}
	k.start()
	k.check(*kills)
	k.stop()
	total := 0
	for i := range k.writers {
		total += k.writers[i].acked
	}
	t.Logf("%d kills, %d acknowledged writes, none lost", *kills, total)
}

func (k *killedNode) args() []string {
	// Small memtables, so that flushes and compactions are killed too.
	return []string{"serve", "-o", "json", "--data", filepath.Join(k.dir, "data"), "--memtable",
		"64KiB", "--listen", "127.0.0.1:0", "--admin", "off"}
}

func (k *killedNode) start() {
	k.t.Helper()
	n, err := startNode(k.args(), filepath.Join(k.dir, "log"))
	if err != nil {
		k.t.Fatal(err)
	}
	k.node = n
	k.t.Cleanup(func() { _ = n.cmd.Process.Kill() })
	pin, err := netquic.ReadPin(filepath.Join(k.dir, "data", "tls", netquic.CertFile))
	if err != nil {
		k.t.Fatal(err)
	}
	c, err := netquic.NewClient(n.ready.Listen, netquic.Options{Pin: pin})
	if err != nil {
		k.t.Fatal(err)
	}
	k.client = replication.NewClient(c, netquic.ErrInDoubt)
}

// killWhileOpening kills a node at some moment of its start: recovery itself must survive it.
func (k *killedNode) killWhileOpening() {
	cmd := exec.Command("kvd", k.args()...)
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	time.Sleep(time.Duration(k.r.IntN(60)) * time.Millisecond)
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
}

func (k *killedNode) writeUntilKilled() {
	ctx, cancel := context.WithCancel(k.t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for i := range k.writers {
		wg.Go(func() { k.writers[i].write(ctx, k.client, i) })
	}
	time.Sleep(time.Duration(20+k.r.IntN(280)) * time.Millisecond)
	if err := k.node.cmd.Process.Kill(); err != nil {
		k.t.Fatal(err)
	}
	_ = k.node.cmd.Wait() // it was killed
	time.AfterFunc(500*time.Millisecond, cancel)
	wg.Wait()
	_ = k.client.Close() // its node is gone
}

// write writes with Sync until a write fails.
func (w *killWriter) write(ctx context.Context, c *replication.Client, id int) {
	for {
		key := fmt.Sprintf("w%d/%03d", id, w.r.IntN(200))
		value := ""
		var err error
		if w.r.IntN(5) == 0 {
			err = c.Delete(ctx, []byte(key), lsm.Sync)
		} else {
			value = fmt.Sprintf("%s=%d %s", key, w.r.Uint64(), strings.Repeat("v", w.r.IntN(900)))
			err = c.Put(ctx, []byte(key), []byte(value), lsm.Sync)
		}
		if err != nil {
			w.pending[key] = value
			return
		}
		w.acked++
		w.set(key, value)
	}
}

func (w *killWriter) set(key, value string) {
	if value == "" {
		delete(w.known, key)
	} else {
		w.known[key] = value
	}
}

// check compares what is in the node with what is known, and learns how the pending writes ended.
func (k *killedNode) check(kill int) {
	k.t.Helper()
	there := map[string]string{}
	err := k.client.Scan(k.t.Context(), nil, nil, 0, func(key, value []byte) error {
		there[string(key)] = string(value)
		return nil
	})
	if err != nil {
		k.t.Fatalf("after kill %d: %v", kill, err)
	}
	for i := range k.writers {
		w := &k.writers[i]
		for key, value := range w.pending {
			if there[key] == value {
				w.set(key, value) // it made it
			}
		}
		clear(w.pending)
		for key, value := range w.known {
			if there[key] != value {
				k.t.Fatalf("after kill %d: %s was acknowledged as %.40q and is %.40q", kill, key,
					value, there[key])
			}
			delete(there, key)
		}
	}
	for key, value := range there {
		k.t.Fatalf("after kill %d: %s is %.40q, which it should not be", kill, key, value)
	}
}

func (k *killedNode) verify(kill int) {
	k.t.Helper()
	out, err := exec.Command("kvd", "debug", "verify", "--data",
		filepath.Join(k.dir, "data")).CombinedOutput()
	if err != nil {
		k.t.Fatalf("after kill %d: %v: %s", kill, err, out)
	}
}

func (k *killedNode) stop() {
	k.t.Helper()
	if err := errors.Join(k.client.Close(), k.node.cmd.Process.Signal(syscall.SIGTERM),
		k.node.cmd.Wait()); err != nil {
		k.t.Fatal(err)
	}
}

// TestGracefulStop stops a node under load by SIGTERM: it exits with 0, every write gets an
// answer, and what was acknowledged is there afterwards, unsynced writes too.
func TestGracefulStop(t *testing.T) {
	k := &killedNode{t: t, dir: t.TempDir()}
	k.start()
	const writers = 8
	var acked [writers]int
	var failures [writers]error
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	classes := []lsm.Durability{lsm.Sync, lsm.Async, lsm.NoSync}
	for w := range writers {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Appendf(nil, "w%d/%06d", w, i)
				if err := k.client.Put(ctx, key, key, classes[i%3]); err != nil {
					failures[w] = err
					return
				}
				acked[w]++
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	if err := k.node.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := k.node.cmd.Wait(); err != nil {
		t.Fatalf("the node does not stop with 0: %v", err)
	}
	cancel()
	wg.Wait()
	for w, err := range failures {
		if errors.Is(err, replication.ErrInDoubt) {
			t.Errorf("writer %d: a write in doubt after a graceful stop: %v", w, err)
		}
	}
	_ = k.client.Close() // its node is gone
	k.start()
	defer k.stop()
	for w := range writers {
		for i := range acked[w] {
			key := fmt.Appendf(nil, "w%d/%06d", w, i)
			if _, err := k.client.Get(t.Context(), key, nil); err != nil {
				t.Fatalf("%s was acknowledged: %v", key, err)
			}
		}
	}
}

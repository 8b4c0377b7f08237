package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the test binary answer to the name kvd, so that scripts and tests run the real
// command in processes of its own.
func TestMain(m *testing.M) {
	// A race-enabled process otherwise sleeps a second before it exits, and there are hundreds.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"kvd": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("KVD_KNOWN_NODES", e.WorkDir+"/known_nodes")
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			e.Setenv("TMPDIR", e.WorkDir)
			e.Setenv("GOROOT", "")
			if !otherDisk() {
				return nil
			}
			dir, err := os.MkdirTemp(sharedMemory, "kvd-test-")
			e.Defer(func() { _ = os.RemoveAll(dir) })
			e.Setenv("ELSEWHERE", dir)
			return err
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Geteuid() == 0, nil
			case "elsewhere":
				return otherDisk(), nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"node":     scriptNode,
			"stopnode": scriptStopNode,
			"status":   scriptStatus,
			"repeat":   scriptRepeat,
			"httpget":  scriptHTTPGet,
			"flip":     scriptFlip,
			"glob":     scriptGlob,
			"mkfifo":   scriptFIFO,
			"address":  scriptAddress,
			"context":  scriptContext,
		},
	})
}

const sharedMemory = "/dev/shm"

// otherDisk reports whether there is a file system besides that of the scripts: ELSEWHERE is a
// directory on it.
func otherDisk() bool {
	var here, there syscall.Stat_t
	return syscall.Stat(os.TempDir(), &here) == nil && syscall.Stat(sharedMemory, &there) == nil &&
		here.Dev != there.Dev
}

// runningNode is the node of a script.
type runningNode struct {
	cmd   *exec.Cmd
	ready readyLine
}

// nodes maps the work directory of a script to its node. Scripts run in parallel.
var nodes = newNodeTable()

// scriptNode is "node [flags]": it starts a node on $WORK/data unless --data says otherwise, waits
// until it serves, and sets KVD_ADDR and ADMIN.
func scriptNode(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("use exec to see a node fail")
	}
	full := []string{"serve", "-o", "json", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
		"--data", ts.Getenv("WORK") + "/data"}
	n, err := startNode(append(full, args...), ts.Getenv("WORK")+"/node.log")
	ts.Check(err)
	nodes.set(ts.Getenv("WORK"), n)
	ts.Defer(func() {
		_ = n.cmd.Process.Kill()
		_ = n.cmd.Wait()
	})
	ts.Setenv("KVD_ADDR", n.ready.Listen)
	ts.Setenv("ADMIN", n.ready.Admin)
}

func startNode(args []string, logName string) (*runningNode, error) {
	known := filepath.Join(filepath.Dir(logName), "known_nodes")
	args = slices.Insert(slices.Clone(args), 1, "--known-nodes", known, "--with-stdin")
	n := &runningNode{cmd: exec.Command("kvd", args...)}
	// Never written to: it ends with this process, and the node with it.
	if _, err := n.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	n.cmd.Env = withoutSettings(os.Environ())
	log, err := os.OpenFile(logName, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	n.cmd.Stderr = log
	stdout, err := n.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &n.ready)
	}
	if err != nil {
		_ = n.cmd.Process.Kill()
		_ = n.cmd.Wait()
		said, _ := os.ReadFile(logName)
		return nil, fmt.Errorf("node did not start: %w: %s", err, said)
	}
	return n, nil
}

// scriptStopNode is "stopnode [signal]": it stops the node and checks that it exits with 0.
func scriptStopNode(ts *testscript.TestScript, neg bool, args []string) {
	n := nodes.get(ts.Getenv("WORK"))
	signal := syscall.SIGTERM
	if len(args) == 1 && args[0] == "KILL" {
		signal = syscall.SIGKILL
	}
	if len(args) == 1 && args[0] == "INT" {
		signal = syscall.SIGINT
	}
	ts.Check(n.cmd.Process.Signal(signal))
	err := n.cmd.Wait()
	if signal != syscall.SIGKILL {
		ts.Check(err)
	}
}

// scriptStatus is "status N command...": the command must exit with N.
func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if (got == want) == neg {
		ts.Fatalf("exit code %d, want %d; stderr: %s", got, want, ts.ReadFile("stderr"))
	}
}

// scriptRepeat is "repeat VAR TEXT N": VAR becomes N times TEXT. With @FILE it goes to a file.
func scriptRepeat(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	text := strings.Repeat(args[1], n)
	if name, ok := strings.CutPrefix(args[0], "@"); ok {
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o644))
		return
	}
	ts.Setenv(args[0], text)
}

// scriptHTTPGet is "httpget PATH CODE FILE": the admin's answer goes to FILE.
func scriptHTTPGet(ts *testscript.TestScript, neg bool, args []string) {
	r, err := http.Get("http://" + ts.Getenv("ADMIN") + args[0])
	ts.Check(err)
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	ts.Check(err)
	if strconv.Itoa(r.StatusCode) != args[1] {
		ts.Fatalf("%s answers %s, want %s: %s", args[0], r.Status, args[1], body)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), body, 0o644))
}

// scriptFlip is "flip FILE OFFSET": it damages one byte.
func scriptFlip(ts *testscript.TestScript, neg bool, args []string) {
	off, err := strconv.Atoi(args[1])
	ts.Check(err)
	name := ts.MkAbs(args[0])
	b, err := os.ReadFile(name)
	ts.Check(err)
	b[off] ^= 0x40
	ts.Check(os.WriteFile(name, b, 0o644))
}

// scriptFIFO is "mkfifo NAME": a named pipe, which an import must not hang on.
func scriptFIFO(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(syscall.Mkfifo(ts.MkAbs(args[0]), 0o644))
}

// scriptAddress is "address VAR": VAR becomes an address that is free, for the list of a cluster.
func scriptAddress(ts *testscript.TestScript, neg bool, args []string) {
	ts.Setenv(args[0], freeAddr())
}

// scriptContext is "context VAR": VAR becomes the context in the JSON on stdout.
func scriptContext(ts *testscript.TestScript, neg bool, args []string) {
	var got struct{ Context string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &got))
	ts.Setenv(args[0], got.Context)
}

// scriptGlob is "glob VAR PATTERN": VAR becomes the last file that matches.
func scriptGlob(ts *testscript.TestScript, neg bool, args []string) {
	names, err := filepath.Glob(ts.MkAbs(args[1]))
	ts.Check(err)
	if len(names) == 0 {
		ts.Fatalf("nothing matches %s", args[1])
	}
	ts.Setenv(args[0], names[len(names)-1])
}

type nodeTable struct {
	mu sync.Mutex
	m  map[string]*runningNode
}

func newNodeTable() *nodeTable { return &nodeTable{m: map[string]*runningNode{}} }

func (t *nodeTable) set(work string, n *runningNode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.m[work] = n
}

func (t *nodeTable) get(work string) *runningNode {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[work]
}

package netquic

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The process is the same, only its monitor wakes up 100 times a second.
func TestKeepMonitorAwake(t *testing.T) {
	for _, c := range []struct {
		given, left string
		awake       bool
	}{
		{"", "", true},
		{"gctrace=0", "gctrace=0", true},
		{"schedtrace=0", "schedtrace=0", false},
		{"schedtrace=0,gctrace=0", "schedtrace=0,gctrace=0", false},
	} {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestAsMonitored$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG="+c.given, monitored+"=1")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("process %d, GODEBUG %q", cmd.Process.Pid, c.left)
		for lines := bufio.NewScanner(out); lines.Text() != want; {
			if !lines.Scan() {
				t.Fatalf("GODEBUG=%s: it did not say %s", c.given, want)
			}
		}
		// It does nothing now. A busy machine lets it wake up late, never more often.
		time.Sleep(200 * time.Millisecond)
		before, n := sleeps(t, cmd.Process.Pid), 0
		for range 10 {
			time.Sleep(500 * time.Millisecond)
			if n = sleeps(t, cmd.Process.Pid) - before; n >= 20 || !c.awake {
				break
			}
		}
		if n >= 20 != c.awake {
			t.Errorf("GODEBUG=%s: its threads went to sleep %d times", c.given, n)
		}
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// A program that cannot be started anew went on with the few open files that a shell allows.
func TestFailedStartKeepsOpenFiles(t *testing.T) {
	if os.Getenv(monitored) == "" { // with a limit that Go raises
		cmd := exec.Command("sh", "-c", `ulimit -S -n 256 && exec "$0" -test.run "$1"`, os.Args[0],
			"^TestFailedStartKeepsOpenFiles$")
		cmd.Env = append(os.Environ(), monitored+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	var before, after syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if before.Cur <= 256 {
		t.Skip("no more are allowed")
	}
	startAnew(filepath.Join(t.TempDir(), "none"))
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &after); err != nil || before != after {
		t.Errorf("limit of open files %v, then %v, %v", before, after, err)
	}
}

const monitored = "NETQUIC_TEST_MONITORED"

// TestAsMonitored is the other process of TestKeepMonitorAwake.
func TestAsMonitored(t *testing.T) {
	if os.Getenv(monitored) == "" {
		t.Skip("only as a process of TestKeepMonitorAwake")
	}
	KeepMonitorAwake()
	fmt.Printf("process %d, GODEBUG %q\n", os.Getpid(), os.Getenv("GODEBUG"))
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the other one has seen enough
}

// sleeps is how often a thread of a process has gone to sleep.
func sleeps(t *testing.T, pid int) (all int) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		t.Fatal(threads, err)
	}
	for _, name := range threads {
		status, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		_, rest, _ := strings.Cut(string(status), "\nvoluntary_ctxt_switches:")
		n := 0
		if _, err := fmt.Sscan(rest, &n); err != nil {
			t.Fatalf("%s: %v", status, err)
		}
		all += n
	}
	return all
}

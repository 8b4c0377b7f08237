package netquic

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
		var out bytes.Buffer
		cmd := exec.Command(os.Args[0], "-test.run", "^TestAsMonitored$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG="+c.given, monitored+"=1")
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("%q: %v\n%s", c.given, err, &out)
		}
		want := fmt.Sprintf("process %d, GODEBUG %q, awake %v\n", cmd.Process.Pid, c.left, c.awake)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q: want %s, got\n%s", c.given, want, &out)
		}
	}
}

const monitored = "NETQUIC_TEST_MONITORED"

// TestAsMonitored is the other process of the test above.
func TestAsMonitored(t *testing.T) {
	if os.Getenv(monitored) == "" {
		t.Skip("only as a process of TestKeepMonitorAwake")
	}
	KeepMonitorAwake()
	before, began := sleeps(t), time.Now()
	time.Sleep(500 * time.Millisecond)
	awake := float64(sleeps(t)-before)/time.Since(began).Seconds() > 40
	fmt.Printf("process %d, GODEBUG %q, awake %v\n", os.Getpid(), os.Getenv("GODEBUG"), awake)
}

// sleeps is how often a thread of this process has gone to sleep.
func sleeps(t *testing.T) (all int) {
	threads, err := filepath.Glob("/proc/self/task/*/status")
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

package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What the demo says a visitor may try works, also with a node less; Ctrl-C leaves nothing.
func TestDemoKeep(t *testing.T) {
	temp, tree := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(tree, "a"), []byte("aaa"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("kvd", "demo", tree, "--write-for", "300ms", "--keep", "-o", "json")
	cmd.Env = append(withoutSettings(os.Environ()), "TMPDIR="+temp)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	var kept struct {
		Phase, Addr, TLS string
		Process          int
	}
	var phases strings.Builder
	for lines := bufio.NewScanner(stdout); kept.Phase != "keep"; {
		if !lines.Scan() {
			t.Fatalf("it ended before it kept the nodes up: %v\n%s", cmd.Wait(), said.String())
		}
		phases.Write(lines.Bytes())
		if err := json.Unmarshal(lines.Bytes(), &kept); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{`"phase":"start"`, `"acknowledged_share":`, `"phase":"proof"`,
		`"lost":0`} {
		if !strings.Contains(phases.String(), want) {
			t.Errorf("no %s in %s", want, phases.String())
		}
	}
	if strings.Contains(phases.String(), "Imported") {
		t.Errorf("words for people in %s", phases.String())
	}
	kvd := func(want string, args ...string) {
		t.Helper()
		c := exec.Command("kvd", args...)
		c.Env = append(withoutSettings(os.Environ()), "KVD_ADDR="+kept.Addr, "KVD_TLS="+kept.TLS)
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
	kvd("", "put", "greeting", "hello")
	kvd("n5", "ring")
	kvd("owner 3", "explain", "greeting")
	if err := syscall.Kill(kept.Process, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	kvd("hello", "get", "greeting")
	kvd("", "put", "greeting", "hello again")
	kvd("hello again", "get", "greeting")
	kvd("aaa", "get", "a")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, stdout) // Wait closes it
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, said.String())
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("the demo left %v, %v", left, err)
	}
}

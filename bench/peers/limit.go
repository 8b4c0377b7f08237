package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// memoryGroup is a memory cgroup for one child. What the kernel caches of the child's files counts
// like what the child allocates, so no engine reads from the page cache what it may not hold.
type memoryGroup struct {
	Dir  string
	Knob string // the file that takes the limit
}

// newMemoryGroup makes a group that may use so many bytes, of cgroup v1 or v2, whichever has the
// memory controller here.
func newMemoryGroup(bytes int64) (*memoryGroup, error) {
	root, swap := "/sys/fs/cgroup/memory", "memory.swappiness"
	g := &memoryGroup{Knob: "memory.limit_in_bytes"}
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		root, swap = filepath.Dir(root), "memory.swap.max"
		g.Knob = "memory.max"
	}
	dir, err := os.MkdirTemp(root, "peers")
	if err != nil {
		return nil, fmt.Errorf("peers: a memory limit needs a writable memory cgroup: %w", err)
	}
	g.Dir = dir
	if err := g.set(bytes); err != nil {
		return nil, errors.Join(err, g.remove())
	}
	_ = g.write(swap, 0) // the file is absent where there is no swap to forbid
	return g, nil
}

func (g *memoryGroup) write(name string, v int64) error {
	return os.WriteFile(filepath.Join(g.Dir, name), []byte(strconv.FormatInt(v, 10)), 0o644)
}

// set changes the limit; the kernel drops cached pages to get there.
func (g *memoryGroup) set(bytes int64) error {
	if err := g.write(g.Knob, bytes); err != nil {
		return fmt.Errorf("peers: limiting memory: %w", err)
	}
	return nil
}

// command is program, which enters the group before its first instruction.
func (g *memoryGroup) command(ctx context.Context, program string) *exec.Cmd {
	const enter = `echo $$ >"$1" && exec "$0"`
	return exec.CommandContext(ctx, "/bin/sh", "-c", enter, program,
		filepath.Join(g.Dir, "cgroup.procs"))
}

// explain adds to the error of a child that the kernel killed one of the group for its memory.
func (g *memoryGroup) explain(err error) error {
	for _, name := range []string{"memory.oom_control", "memory.events"} {
		for line := range strings.Lines(contents(filepath.Join(g.Dir, name))) {
			if n, ok := strings.CutPrefix(line, "oom_kill "); ok && strings.TrimSpace(n) != "0" {
				return fmt.Errorf("out of memory under the limit: %w", err)
			}
		}
	}
	return err
}

// remove takes the group away. The kernel needs a moment after the last process has gone.
func (g *memoryGroup) remove() error {
	err := syscall.Rmdir(g.Dir)
	for try := 0; err == syscall.EBUSY && try < 50; try++ {
		time.Sleep(20 * time.Millisecond)
		err = syscall.Rmdir(g.Dir)
	}
	if err != nil {
		return fmt.Errorf("peers: removing %s: %w", g.Dir, err)
	}
	return nil
}

// killable makes the end of a context end what the command started too.
func killable(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

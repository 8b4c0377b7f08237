package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// childNode is a node in a process of its own, started from this program's binary.
type childNode struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser // the child stops when it is closed, so it does not outlive this process
	ready readyLine
	log   *tailBuffer
	ended error         // of the process, once done is closed
	done  chan struct{} // closed when the process has ended
}

// startChildNode starts a node with these flags and waits until it serves. What it logs goes
// nowhere unless the start fails, or its end.
func startChildNode(flags ...string) (*childNode, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &childNode{log: new(tailBuffer), done: make(chan struct{})}
	c.cmd = exec.Command(self, append([]string{"serve", "-o", "json", "--with-stdin",
		"--admin", "127.0.0.1:0", "--log-level", "warn"}, flags...)...)
	c.cmd.Env = withoutSettings(os.Environ())
	c.cmd.Stderr = c.log
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &c.ready)
	}
	go func() {
		c.ended = c.cmd.Wait()
		close(c.done)
	}()
	if err != nil {
		c.kill()
		return nil, errors.Join(fmt.Errorf("the node did not start: %w", err), c.log.err())
	}
	return c, nil
}

// kill ends the process with SIGKILL and waits for its end.
func (c *childNode) kill() {
	_ = c.cmd.Process.Kill() // it may have ended already
	<-c.done
	_ = c.stdin.Close()
}

// failure says why the process, which has ended, did not end in order.
func (c *childNode) failure() error {
	if c.ended == nil {
		return nil
	}
	return errors.Join(c.ended, c.log.err())
}

// withoutSettings removes the user's settings from an environment: they are not for this node.
func withoutSettings(environment []string) (rest []string) {
	for _, v := range environment {
		if !strings.HasPrefix(v, "KVD_") {
			rest = append(rest, v)
		}
	}
	return rest
}

// tailBuffer keeps the end of what is written to it.
type tailBuffer struct {
	mu   sync.Mutex
	tail []byte
}

const tailBytes = 8 << 10

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tail = append(b.tail, p...)
	if n := len(b.tail); n > tailBytes {
		b.tail = append(b.tail[:0], b.tail[n-tailBytes:]...)
	}
	return len(p), nil
}

func (b *tailBuffer) err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.tail) == 0 {
		return nil
	}
	return errors.New(strings.TrimSpace(string(b.tail)))
}

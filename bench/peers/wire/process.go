package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is a process that serves on a port of the loopback.
type server struct {
	cmd  *exec.Cmd
	log  string
	addr string
}

// startServer starts a program whose words go to a file beside its data.
func startServer(temp, name, addr, path string, args ...string) (*server, error) {
	log := filepath.Join(temp, name+".log")
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the process has its own
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &server{cmd, log, addr}, nil
}

// stop kills: nobody needs the data any more.
func (s *server) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// failed adds what the server said last, which tells more than that nobody answered.
func (s *server) failed(err error) error {
	text, _ := os.ReadFile(s.log)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Errorf("%w; the server's last words: %s", err, lines[len(lines)-1])
}

func (s *server) port() string {
	_, port, _ := net.SplitHostPort(s.addr)
	return port
}

func (s *server) cpu() (time.Duration, error) { return processCPU(s.cmd.Process.Pid) }

// processCPU is the user and system time of a process, of all its threads.
func processCPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(string(stat))
}

// parseStat reads fields 14 and 15 of /proc/PID/stat, in ticks of which Linux shows programs 100 a
// second on every machine. Fields are counted from the last parenthesis: the name of the program,
// in parentheses before it, may contain anything.
func parseStat(stat string) (time.Duration, error) {
	const before, tick = 11, 10 * time.Millisecond // fields 3 to 13
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < before+2 {
		return 0, errors.New("no processor time in /proc/PID/stat")
	}
	user, err1 := strconv.Atoi(fields[before])
	system, err2 := strconv.Atoi(fields[before+1])
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// ownCPU is the user and system time of this process.
func ownCPU() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// freeAddr is an address of the loopback that nobody listens on, yet.
func freeAddr(network string) (string, error) {
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		return c.LocalAddr().String(), c.Close()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

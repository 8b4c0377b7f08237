package bench

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"kvd/lsm/procs"
)

// Machine is where a figure was made: without it the figure says little.
type Machine struct {
	CPU         string `json:"cpu"`
	Cores       int    `json:"cores"`
	MaxProcs    int    `json:"gomaxprocs"`
	MemoryBytes int64  `json:"memory_bytes,omitempty"`
	OS          string `json:"os"`
	Kernel      string `json:"kernel,omitempty"`
	Governor    string `json:"governor,omitempty"`
	Go          string `json:"go"`
	Arch        string `json:"arch"`
	Commit      string `json:"commit,omitempty"` // of this program; + = built from a changed tree
	Race        bool   `json:"race,omitempty"`   // built with the race detector
}

// ReadMachine gathers what this machine and this program tell about themselves. What cannot be
// found out stays empty.
func ReadMachine() Machine {
	m := Machine{
		CPU:      cpuModel(readLine("/proc/cpuinfo", "model name")),
		Cores:    runtime.NumCPU(),
		MaxProcs: procs.All(),
		OS:       runtime.GOOS,
		Kernel:   readLine("/proc/sys/kernel/osrelease", ""),
		Governor: readLine("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", ""),
		Go:       runtime.Version(),
		Arch:     runtime.GOARCH,
	}
	kb, _, _ := strings.Cut(readLine("/proc/meminfo", "MemTotal"), " ")
	if n, err := strconv.ParseInt(kb, 10, 64); err == nil {
		m.MemoryBytes = n << 10
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		m.addBuild(info.Settings)
	}
	return m
}

func (m *Machine) addBuild(settings []debug.BuildSetting) {
	changed := false
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			m.Commit = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			changed = s.Value == "true"
		case "-race":
			m.Race = s.Value == "true"
		case "GOAMD64", "GOARM64":
			m.Arch += " " + s.Value
		}
	}
	if changed && m.Commit != "" {
		m.Commit += "+"
	}
}

// readLine is the value after "field: " in a file of the kernel; of its first line when field is
// empty. It is empty when there is none.
func readLine(name, field string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if field == "" {
			return strings.TrimSpace(line)
		}
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == field {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func cpuModel(name string) string {
	if name == "" {
		return "unknown CPU"
	}
	return name
}

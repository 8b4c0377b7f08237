package netquic

import (
	"os"
	"strings"
	"syscall"
)

// monitorAwake is a setting of GODEBUG: tell on stderr every 24.8 days how the scheduler fares,
// which is as seldom as can be said. The runtime's monitor thread never goes to sleep with it.
const monitorAwake = "schedtrace=2147483647"

// KeepMonitorAwake makes calls and messages cheaper in a process that is often idle for less than a
// millisecond, as one that speaks with others is. A program calls it first thing in main; it starts
// the program anew, as the same process, unless that is done. Where that fails, the program goes on
// as it is.
//
// Whenever no goroutine runs, the monitor thread of Go's runtime goes to sleep, and the next packet
// has it woken: a system call, a switch, and fifty more wake-ups in the millisecond after. Only a
// setting in the environment at the start keeps it awake. In thousands a second over loopback,
// without and with it in client and server, where waking a thread is slow and where it is not:
//
//	callers           1           16           64
//	GET       5.2   7.2     47    71    134   170
//	          9.2   9.3     92    95    215   226
//	PUT       1.8   2.6     20    32     84   108
//	          3.0   3.3     35    39    104   119
//
// The price is 100 wake-ups a second of an idle process, 0.4 % of a core; a line on stderr that
// begins with SCHED every 24.8 days, the first at the start if the machine is older; and lines for
// each processor, thread and goroutine before the message of a panic or signal that ends the
// process. A schedtrace in GODEBUG is the user's word: schedtrace=0 lets the monitor sleep.
// Processes that this one starts do not inherit the setting.
func KeepMonitorAwake() {
	given, set := os.LookupEnv("GODEBUG")
	if before, ok := strings.CutSuffix(given, monitorAwake); ok {
		_ = os.Setenv("GODEBUG", strings.TrimSuffix(before, ","))
		return
	}
	if strings.Contains(given, "schedtrace=") {
		return
	}
	self, err := os.Executable()
	if err != nil {
		return
	}
	setting := monitorAwake
	if given != "" {
		setting = given + "," + monitorAwake
	}
	if os.Setenv("GODEBUG", setting) != nil {
		return
	}
	startAnew(self)
	if set {
		_ = os.Setenv("GODEBUG", given)
	} else {
		_ = os.Unsetenv("GODEBUG")
	}
}

// startAnew returns only on failure. An exec sets the limit of open files back to what the program
// was started with, often 1024, and leaves it there when it fails.
func startAnew(self string) {
	var files syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files)
	_ = syscall.Exec(self, os.Args, os.Environ())
	if err == nil {
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files)
	}
}

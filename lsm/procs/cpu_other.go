//go:build !linux || !(amd64 || arm64)

package procs

import "time"

func cpuTime() (time.Duration, bool) { return 0, false }

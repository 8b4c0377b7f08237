//go:build !linux

package netquic

// KeepMonitorAwake does nothing here: only on Linux it was seen to pay.
func KeepMonitorAwake() {}

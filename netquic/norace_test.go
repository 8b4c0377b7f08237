//go:build !race

package netquic

const raceEnabled = false

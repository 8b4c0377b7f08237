package replication

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Level says how many replicas have to answer before a request is answered: for reads R, for writes
// W. A read at R sees every write acknowledged at W when R + W > N and only owners count (Strict).
type Level uint8

// Numbers from 1 are themselves. The values are part of the wire format.
const (
	Quorum Level = 0 // more than half of the owners; the default
	One    Level = 1
	Two    Level = 2
	All    Level = 255
)

// LevelError refuses a level that the number of replicas cannot give.
type LevelError struct {
	Level    Level
	Replicas int
}

func (e *LevelError) Error() string {
	return fmt.Sprintf("replication: consistency %v of %d replicas", e.Level, e.Replicas)
}

// need returns how many answers the level asks for of n replicas.
func (l Level) need(n int) (int, error) {
	switch {
	case l == Quorum:
		return n/2 + 1, nil
	case l == All:
		return n, nil
	case int(l) > n:
		return 0, &LevelError{l, n}
	}
	return int(l), nil
}

func (l Level) String() string {
	switch l {
	case Quorum:
		return "QUORUM"
	case One:
		return "ONE"
	case Two:
		return "TWO"
	case All:
		return "ALL"
	}
	return strconv.Itoa(int(l))
}

var errLevel = errors.New("must be ONE, TWO, QUORUM, ALL or a number of replicas")

// ParseLevel reads what String writes, in any case.
func ParseLevel(s string) (Level, error) {
	switch strings.ToUpper(s) {
	case "ONE":
		return One, nil
	case "TWO":
		return Two, nil
	case "QUORUM":
		return Quorum, nil
	case "ALL":
		return All, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n >= int(All) {
		return 0, errLevel
	}
	return Level(n), nil
}

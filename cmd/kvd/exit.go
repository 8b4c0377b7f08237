package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"kvd/lsm"
	"kvd/netquic"
	"kvd/replication"
)

// The exit codes. Scripts rely on them.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2 // the command line, a setting or a size is wrong: nothing was done
	exitNotFound = 3 // get: the key has no value
)

// usageError is a mistake in the command line or in a setting.
type usageError struct {
	err  error
	hint string // what to do about it; by default to look at --help
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// notFoundError is a key without a value.
type notFoundError struct{ key []byte }

func (e *notFoundError) Error() string { return "not found: " + printable(e.key) }

// report prints err, with what to do about it, and returns the exit code.
func (p *program) report(cmd *cobra.Command, err error) int {
	if err == nil {
		return exitDone
	}
	name := "kvd"
	if cmd != nil {
		name = cmd.CommandPath()
	}
	fmt.Fprintf(p.stderr, "%s: %s\n", name, strings.TrimSpace(err.Error()))
	if h := p.hint(err, name); h != "" {
		fmt.Fprintf(p.stderr, "  %s\n", h)
	}
	return exitCode(err)
}

func exitCode(err error) int {
	if _, ok := errors.AsType[*notFoundError](err); ok {
		return exitNotFound
	}
	if _, ok := errors.AsType[*usageError](err); ok || errors.Is(err, replication.ErrBadRequest) {
		return exitUsage
	}
	if _, ok := errors.AsType[*lsm.KeySizeError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*lsm.ValueSizeError](err); ok {
		return exitUsage
	}
	return exitFailed
}

// insteadOf says what to do when the directory of an offline command is in use.
func insteadOf(command string) string {
	switch {
	case strings.HasPrefix(command, "kvd debug"):
		return "stop it first, or take a checkpoint and look at that"
	case command == "kvd import", command == "kvd export":
		return "stop it, or go through it without --data"
	}
	return "stop it first, or give another one with --data"
}

// refusedHint says what to do about a setting that only the cluster could judge. Its errors come as
// texts.
func refusedHint(text string) string {
	switch {
	case strings.Contains(text, "replication: context:"):
		return "--context is what kvd get KEY -o json printed, for the same key of the same cluster"
	case strings.Contains(text, "replication: consistency"):
		return "ask for as many replicas as there are, at most; ALL is all of them"
	}
	return ""
}

// existsHint says what to do about a file or a directory that is in the way.
func existsHint(command string) string {
	switch {
	case command == "kvd cert init":
		return "this directory has an authority; kvd cert ls shows whom it has signed"
	case strings.HasPrefix(command, "kvd cert"):
		return "to renew a certificate delete it first; the key beside it stays"
	case command == "kvd debug salvage":
		return "give --to a directory that does not exist yet"
	}
	return ""
}

// missingHint says what to do about a file or a directory that is not there.
func missingHint(command string) string {
	switch {
	case command == "kvd import":
		return "--dir, --jsonl and --data are paths on this machine: is there a mistake in one?"
	case command == "kvd export":
		return "--data is a data directory or a checkpoint; the directory of --jsonl must exist"
	case strings.HasPrefix(command, "kvd debug"):
		return "it wants files of a data directory or of a checkpoint on this machine"
	}
	return ""
}

// checkpointHint says what to do about a checkpoint that failed at the node, whose errors come as
// texts.
func checkpointHint(text string) string {
	switch {
	case strings.Contains(text, "cross-device link"):
		return "a checkpoint is made of hard links: choose a directory on the disk of the data, " +
			"then copy it"
	case strings.Contains(text, fs.ErrExist.Error()):
		return "name a directory that does not exist yet; it is on the node's machine"
	case strings.Contains(text, fs.ErrPermission.Error()):
		return "DIR is on the node's machine: choose one that the node may write to"
	case strings.Contains(text, "damaged table"):
		return "what is sound of it is right; to get rid of damage: kvd debug salvage"
	}
	return ""
}

// ownedHint says what to do about the data of a node of a cluster.
func ownedHint(node replication.NodeID, command string) string {
	switch command {
	case "kvd import", "kvd export":
		return "it holds the cluster's records: start the node, then go through it without --data"
	}
	return "start it with --id " + string(node) + ", --cluster and --tls, or give another " +
		"directory with --data"
}

func unavailableHint(e *replication.UnavailableError) string {
	if e.Got > 0 {
		return "kvd ring shows which nodes are up; --consistency ONE needs one"
	}
	return "kvd ring shows which nodes are up"
}

// hint says what to do about an error; empty when the error says it all.
func (p *program) hint(err error, command string) string {
	if e, ok := errors.AsType[*usageError](err); ok {
		return cmp.Or(e.hint, "see: "+command+" --help")
	}
	if e, ok := errors.AsType[*lsm.KeySizeError](err); ok && e.Bytes == 0 {
		return "a key cannot be empty; is it a variable of the shell that is not set?"
	}
	unknown, isLookup := errors.AsType[*net.DNSError](err)
	switch {
	case errors.Is(err, context.Canceled):
		return ""
	case errors.Is(err, replication.ErrInDoubt):
		return "it may have happened; repeating it is harmless unless others write the key"
	case isLookup && unknown.IsNotFound:
		return "nobody knows the host " + unknown.Name + ": is --addr right?"
	case errors.Is(err, lsm.ErrLocked):
		return "another kvd has this directory open: " + insteadOf(command)
	case errors.Is(err, lsm.ErrFormat):
		return "this directory is not a database of this kvd; give another one with --data"
	case errors.Is(err, lsm.ErrDiskFull) && (command == "kvd" || command == "kvd serve"):
		return "nothing is lost: free some space and start it again"
	case errors.Is(err, lsm.ErrDiskFull):
		return "free some space: writes resume by themselves"
	case errors.Is(err, lsm.ErrSuspended):
		return "the node tries again by itself; its log says what it lacks"
	case errors.Is(err, lsm.ErrReadOnly):
		return "the node's log says why it stopped taking writes; restart it once that is mended"
	case errors.Is(err, replication.ErrOverloaded):
		return "the node has too much to do, try again later"
	case errors.Is(err, netquic.ErrRefused):
		if p.client.addr == defaultListen {
			return "is the node running? start one with: kvd"
		}
		return "nothing answers at " + p.client.addr + ": is --addr right, is the node running?"
	case errors.Is(err, replication.ErrBadRequest):
		return refusedHint(err.Error())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, netquic.ErrTimeout):
		return "no answer in time; is --addr right, is the node running? (--timeout waits longer)"
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program has this port: stop it, or choose one with --listen and --admin"
	case errors.Is(err, fs.ErrExist):
		return existsHint(command)
	case strings.HasPrefix(command, "kvd cert") && errors.Is(err, fs.ErrNotExist):
		return "make an authority with: kvd cert init; certificates are made where ca.key is"
	case errors.Is(err, fs.ErrPermission):
		return "this user may not read and write there: change the owner, or choose another place"
	}
	if command == "kvd checkpoint" {
		if h := checkpointHint(err.Error()); h != "" {
			return h
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return missingHint(command)
	}
	if e, ok := errors.AsType[*replication.OwnedError](err); ok {
		return ownedHint(e.Node, command)
	}
	if _, ok := errors.AsType[*replication.IdentityError](err); ok {
		return "start it as it was before; to change the nodes of a cluster, export and import"
	}
	if e, ok := errors.AsType[*replication.UnavailableError](err); ok {
		return unavailableHint(e)
	}
	if e, ok := errors.AsType[*lsm.CorruptError](err); ok {
		return "nothing damaged was served; restore " + e.File + " or the directory from a " +
			"checkpoint, or write what is left to a new one: kvd debug salvage"
	}
	return ""
}

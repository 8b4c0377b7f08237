// Package wal is the commit log: framing, group sync and recovery.
package wal

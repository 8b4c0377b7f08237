// Package sstable is the sorted immutable file of the engine.
package sstable

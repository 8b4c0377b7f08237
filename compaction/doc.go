// Package compaction keeps a log-structured merge tree in shape.
package compaction

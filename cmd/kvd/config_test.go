package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// FuzzConfig: no text of a config file makes the parser panic, and what it accepts are known keys
// whose values mean the same when they are written down again.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		"", "data = \"x\"\n", "memtable = 64\nadmin = \"off\"", "cache = 1.5e300", "datta = 1",
		"data = [1]", "[data]\nx = 1", "data = 1\ndata = 2", "insecure-any-client = true",
		"data = \"\"\"\na\\tb\"\"\"", "listen = 2026-01-01", "\x00", "data", "= 1", "\"da ta\" = 1",
	} {
		f.Add(text)
	}
	known := []string{"admin", "cache", "data", "insecure-any-client", "listen", "memtable"}
	f.Fuzz(func(t *testing.T, text string) {
		values, err := parseConfig("file", text, known)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "config file file: ") {
				t.Fatalf("the error does not say where: %v", err)
			}
			return
		}
		var again strings.Builder
		for key, value := range values {
			if !slices.Contains(known, key) {
				t.Fatalf("accepts the key %q", key)
			}
			fmt.Fprintf(&again, "%q = %s\n", key, tomlString(value))
		}
		back, err := parseConfig("file", again.String(), known)
		if err != nil || !maps.Equal(values, back) {
			t.Fatalf("%q gives %v; written down again %v, %v", text, values, back, err)
		}
	})
}

// tomlString writes a TOML basic string: every control character as an escape.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

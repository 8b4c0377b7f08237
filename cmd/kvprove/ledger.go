package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// The ledger keeps what long runs counted: one line of JSON for each, and a page made from all.
const (
	ledgerFile = "docs/ledger.jsonl"
	ledgerPage = "docs/ledger.md"
)

// entry is one run.
type entry struct {
	Date    string   `json:"date"`
	Commit  string   `json:"commit"` // a + says that the tree was changed
	Seconds int64    `json:"seconds"`
	Parts   []string `json:"parts"`
	Failed  []string `json:"failed,omitempty"`
	Figures figures  `json:"figures"`
}

// record adds a run to the ledger.
func record(e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(moduleFile(ledgerFile))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	data = append(append(data, line...), '\n')
	page, err := renderLedger(data)
	if err != nil {
		return err
	}
	if err := os.WriteFile(moduleFile(ledgerFile), data, 0o644); err != nil {
		return err
	}
	return os.WriteFile(moduleFile(ledgerPage), page, 0o644)
}

// renderLedger makes the page of the lines.
func renderLedger(data []byte) ([]byte, error) {
	var entries []entry
	total := figures{}
	for _, line := range bytes.Split(bytes.TrimSpace(data), []byte("\n")) {
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", ledgerFile, err, line)
		}
		entries = append(entries, e)
		total.add(e.Figures)
	}
	var b bytes.Buffer
	b.WriteString("# What long runs counted\n\n" +
		"Made from [ledger.jsonl](ledger.jsonl) by `go run ./cmd/kvprove -record`. " +
		"What the figures stand for: [guarantees.md](guarantees.md).\n\n" +
		"| figure | all runs | last run that counted it |\n|---|---:|---:|\n")
	for _, name := range sortedNames(total) {
		last := int64(0)
		for _, e := range entries {
			if n, ok := e.Figures[name]; ok {
				last = n
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", name, grouped(total[name]), grouped(last))
	}
	b.WriteString("\n| date | commit | minutes | parts | failed |\n|---|---|---:|---|---|\n")
	for _, e := range entries {
		failed := "none"
		if len(e.Failed) > 0 {
			failed = strings.Join(e.Failed, ", ")
		}
		fmt.Fprintf(&b, "| %s | %s | %.1f | %s | %s |\n", e.Date, e.Commit,
			float64(e.Seconds)/60, strings.Join(e.Parts, ", "), failed)
	}
	return b.Bytes(), nil
}

package bench

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
)

//go:embed report.html.tmpl
var pageText string

var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"count": count, "duration": duration, "ops": func(n uint64) string { return count(float64(n)) },
}).Parse(pageText))

// pageData is what the page shows.
type pageData struct {
	*Report
	Facts []Stat
	Runs  []pageRun
}

type pageRun struct {
	*Result
	ID     string
	Rows   []pageRow
	Facts  []Stat
	Charts []chart
}

type pageRow struct {
	*Operation
	Cells []string // as in the text table, from MB/s on
	Bar   float64  // width of the bar behind ops/s in percent
}

// WriteHTML writes the report as one page that needs nothing else: no script, no network.
func (p *Report) WriteHTML(w io.Writer) error {
	top := 0.0
	for _, r := range p.Results {
		for i := range r.Operations {
			top = max(top, r.Operations[i].OpsPerSecond)
		}
	}
	data := pageData{Report: p, Facts: p.Machine.facts()}
	for i, r := range p.Results {
		run := pageRun{Result: r, ID: fmt.Sprintf("run-%d", i+1), Facts: r.facts(),
			Charts: []chart{percentileChart(r), throughputChart(r), latencyChart(r)}}
		for j := range r.Operations {
			o := &r.Operations[j]
			run.Rows = append(run.Rows, pageRow{o, o.cells(r.Seconds)[2:],
				100 * o.OpsPerSecond / max(top, 1e-9)})
		}
		data.Runs = append(data.Runs, run)
	}
	return page.Execute(w, data)
}

func (m *Machine) facts() []Stat {
	facts := []Stat{
		{"CPU", m.CPU},
		{"Cores", fmt.Sprintf("%d, GOMAXPROCS %d", m.Cores, m.MaxProcs)},
		{"System", strings.TrimSpace(m.OS + " " + m.Kernel)},
		{"Go", m.Go + " " + m.Arch},
	}
	if m.MemoryBytes > 0 {
		size := fmt.Sprintf("%.1f GiB", float64(m.MemoryBytes)/(1<<30))
		facts = append(facts, Stat{"Memory", size})
	}
	if m.Governor != "" {
		facts = append(facts, Stat{"Governor", m.Governor})
	}
	if m.Commit != "" {
		facts = append(facts, Stat{"Commit", m.Commit})
	}
	return facts
}

// facts are the settings of a run.
func (r *Result) facts() []Stat {
	facts := []Stat{
		{"Target", r.Target},
		{"Data", fmt.Sprintf("%s keys of %d B, values of %d B",
			count(float64(r.Keys)), r.KeyBytes, r.ValueBytes)},
		{"Loop", r.Loop()},
		{"Workers", count(float64(r.Workers))},
		{"Measured", duration(1e6 * r.Seconds)},
		{"Seed", fmt.Sprint(r.Seed)},
	}
	add := func(name, value string, when bool) {
		if when {
			facts = append(facts, Stat{name, value})
		}
	}
	add("Durability", r.Durability, r.Durability != "")
	add("Warm-up", duration(1e6*r.WarmupSecs), r.WarmupSecs > 0)
	add("Verified", "every read", r.Verified)
	add("Settling after", duration(1e6*r.SettledSecs), r.SettledSecs >= 0.05)
	add("Client", fmt.Sprintf("%.0f %% busy, waits %s at p99, %.2f allocations per operation",
		100*r.ClientBusy, duration(r.ClientLag), r.AllocsPerOp), true)
	add("Read / ping", fmt.Sprintf("%.2f at p50", r.ComparedPing), r.ComparedPing > 0)
	add("Result hash", r.Hash, r.Hash != "")
	add("First error", r.FirstError, r.FirstError != "")
	return append(facts, r.TargetStats...)
}

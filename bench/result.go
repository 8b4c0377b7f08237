package bench

import (
	"fmt"
	"math"
	"time"
)

// Report is all results of one session on one machine.
type Report struct {
	Machine Machine   `json:"machine"`
	Results []*Result `json:"results"`
}

// Result is what one run saw. Latencies are in microseconds.
type Result struct {
	Workload   string  `json:"workload"`
	About      string  `json:"about"`
	Target     string  `json:"target"`
	Durability string  `json:"durability,omitempty"`
	Keys       uint64  `json:"keys"`
	KeyBytes   int     `json:"key_bytes"`
	ValueBytes int     `json:"value_bytes"`
	Workers    int     `json:"workers"`
	Rate       float64 `json:"rate,omitempty"` // per second, asked for; 0 = closed loop
	WarmupSecs float64 `json:"warmup_seconds,omitempty"`
	Seed       uint64  `json:"seed"`
	Verified   bool    `json:"verified"`

	Started      time.Time   `json:"started"`
	Seconds      float64     `json:"seconds"`
	SettledSecs  float64     `json:"settled_seconds,omitempty"` // debt paid after the clock
	Unstarted    uint64      `json:"unstarted,omitempty"`       // were due, never started
	Operations   []Operation `json:"operations"`
	Series       []Interval  `json:"series"`
	Hash         string      `json:"hash,omitempty"`
	Offence      string      `json:"offence,omitempty"` // the first wrong read
	FirstError   string      `json:"first_error,omitempty"`
	ClientBusy   float64     `json:"client_busy"` // share of its processors
	ClientLag    float64     `json:"client_lag_p99_us"`
	AllocsPerOp  float64     `json:"allocs_per_op"`
	Warnings     []string    `json:"warnings,omitempty"`
	TargetStats  []Stat      `json:"target_stats,omitempty"`
	ComparedPing float64     `json:"p50_per_ping,omitempty"` // p50 of the reads / p50 of ping
}

// Operation is what one kind of operation saw.
type Operation struct {
	Kind          string  `json:"kind"`
	Ops           uint64  `json:"ops"`
	Errors        uint64  `json:"errors"`
	Missing       uint64  `json:"missing"` // reads of keys without value
	Entries       uint64  `json:"entries,omitempty"`
	Bytes         uint64  `json:"bytes"`
	OpsPerSecond  float64 `json:"ops_per_second"`
	MeanMicros    float64 `json:"mean_us"`
	P50Micros     float64 `json:"p50_us"`
	P90Micros     float64 `json:"p90_us"`
	P99Micros     float64 `json:"p99_us"`
	P999Micros    float64 `json:"p999_us"`
	MaxMicros     float64 `json:"max_us"`
	Curve         []Point `json:"curve"`
	EntriesPerSec float64 `json:"entries_per_second,omitempty"`
}

// Point says that the given share of the operations took no longer than Micros.
type Point struct {
	Quantile float64 `json:"quantile"`
	Micros   float64 `json:"us"`
}

// Interval is what ended in one stretch of a run, all kinds together.
type Interval struct {
	StartSeconds float64 `json:"start_seconds"`
	Seconds      float64 `json:"seconds"`
	OpsPerSecond float64 `json:"ops_per_second"`
	Errors       uint64  `json:"errors"`
	P50Micros    float64 `json:"p50_us"`
	P99Micros    float64 `json:"p99_us"`
	MaxMicros    float64 `json:"max_us"`
}

// Loop says how operations were started, and so what their latencies are.
func (r *Result) Loop() string {
	if r.Rate > 0 {
		return fmt.Sprintf("open loop at %s/s, response time", count(r.Rate))
	}
	return "closed loop, service time"
}

// Ops is how many operations succeeded.
func (r *Result) Ops() uint64 {
	var n uint64
	for i := range r.Operations {
		n += r.Operations[i].Ops
	}
	return n
}

// Errors is how many operations failed.
func (r *Result) Errors() uint64 {
	var n uint64
	for i := range r.Operations {
		n += r.Operations[i].Errors
	}
	return n
}

// Operation finds what one kind saw, or nil.
func (r *Result) Operation(k Kind) *Operation {
	for i := range r.Operations {
		if r.Operations[i].Kind == k.String() {
			return &r.Operations[i]
		}
	}
	return nil
}

// ComparePing fills in, for the results of reads, how many times the p50 of a ping theirs is.
func (p *Report) ComparePing() {
	var floor float64
	for _, r := range p.Results {
		if o := r.Operation(Ping); o != nil {
			floor = o.P50Micros
		}
	}
	for _, r := range p.Results {
		if o := r.Operation(Read); o != nil && floor > 0 {
			r.ComparedPing = math.Round(o.P50Micros/floor*100) / 100
		}
	}
}

// result gathers what the run saw.
func (r *runner) result() *Result {
	s := &r.spec
	out := &Result{
		Workload: r.load.Name, About: r.load.About, Target: s.Target, Durability: s.Durability,
		Keys: s.Keys, KeyBytes: s.KeyBytes, ValueBytes: s.ValueBytes, Workers: s.Workers,
		Rate: s.Rate, WarmupSecs: s.Warmup.Seconds(), Seed: s.Seed, Verified: s.Ledger != nil,
		Started: r.base.UTC().Truncate(time.Second), Seconds: r.elapsed.Seconds(),
		SettledSecs: r.settled.Seconds(), Unstarted: r.late,
		ClientBusy: r.usage.busy(), ClientLag: micros(int64(r.usage.wait(0.99))),
	}
	if _, ok := r.failure().(*ValueError); ok {
		out.Offence = r.failure().Error()
	}
	r.rec.fill(out)
	if ops := out.Ops(); ops > 0 {
		out.AllocsPerOp = float64(r.usage.mallocs) / float64(ops)
	}
	if r.hashing {
		out.Hash = fmt.Sprintf("%016x", mix(r.workers[0].hash))
	}
	if t, ok := r.target.(Reporter); ok {
		out.TargetStats = t.Stats()
	}
	out.Warnings = r.warnings(out)
	return out
}

func (r *recorder) fill(out *Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.first != nil {
		out.FirstError = r.first.Error()
	}
	for k := range r.kinds {
		if t := &r.kinds[k]; t.took != nil {
			out.Operations = append(out.Operations, t.shown(Kind(k), out.Seconds))
		}
	}
	// The last interval is seldom whole; a sliver counts to the one before.
	last := int64(out.Seconds*1e9) - int64(len(r.series)-1)*r.width
	if n := len(r.series); n > 1 && last < r.width/2 {
		r.series[n-2].add(r.series[n-1])
		r.series, last = r.series[:n-1], last+r.width
	}
	for i, v := range r.series {
		width := r.width
		if i == len(r.series)-1 {
			width = max(1, last)
		}
		out.Series = append(out.Series, v.shown(int64(i)*r.width, width))
	}
	if r.late != nil {
		out.ClientLag = max(out.ClientLag, micros(r.late.ValueAtQuantile(99)))
	}
}

func (t *tally) shown(k Kind, seconds float64) Operation {
	o := Operation{
		Kind: k.String(), Ops: t.ops, Errors: t.failed, Missing: t.missing, Entries: t.entries,
		Bytes: t.bytes, MaxMicros: micros(t.max),
	}
	if t.ops == 0 {
		return o
	}
	at := func(q float64) float64 { return micros(min(t.took.ValueAtQuantile(q*100), t.max)) }
	o.MeanMicros = micros(t.sum / int64(t.ops))
	o.P50Micros, o.P90Micros, o.P99Micros, o.P999Micros = at(.5), at(.9), at(.99), at(.999)
	if seconds > 0 {
		o.OpsPerSecond = float64(t.ops) / seconds
		o.EntriesPerSec = float64(t.entries) / seconds
	}
	// Eight points per nine, as far as the count of operations carries.
	for step := 0; ; step++ {
		rest := math.Pow(10, -float64(step)/8)
		if rest*float64(t.ops) < 1 || step > 64 {
			break
		}
		o.Curve = append(o.Curve, Point{1 - rest, at(1 - rest)})
	}
	o.Curve = append(o.Curve, Point{1 - 1/float64(t.ops+1), o.MaxMicros})
	return o
}

// Above these the client is part of what was measured.
const (
	lagMicrosMax  = 1000
	clientBusyMax = 0.9
)

func (r *runner) warnings(out *Result) []string {
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if ReadMachine().Race {
		add("built with the race detector: no figure here is worth comparing")
	}
	if out.ClientLag > lagMicrosMax {
		who := "processors saturated: goroutines waited %s for one at p99"
		if r.spec.Remote {
			who = "client saturated: its goroutines waited %s for a processor at p99"
		}
		add(who, duration(out.ClientLag))
	}
	if r.spec.Remote && out.ClientBusy > clientBusyMax {
		add("client saturated: it kept %.0f %% of its processors busy", 100*out.ClientBusy)
	}
	if out.Unstarted > 0 {
		add("the target fell behind: %s operations were due and never started; "+
			"the latencies leave them out", count(float64(out.Unstarted)))
	}
	if n := out.Errors(); n > 0 {
		add("%s operations failed; the latencies leave them out", count(float64(n)))
	}
	read := out.Operation(Read)
	if read != nil && read.Missing > 0 && r.load.Order != Absent {
		add("%s reads found no value", count(float64(read.Missing)))
	}
	if read != nil && read.Missing < read.Ops && r.load.Order == Absent {
		add("%s reads found a value for a key that is never written",
			count(float64(read.Ops-read.Missing)))
	}
	if out.Seconds < 1 {
		add("measured for less than a second")
	}
	return list
}

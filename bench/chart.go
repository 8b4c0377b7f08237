package bench

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// chart is a picture worked out down to coordinates; the page only prints it. Charts are values:
// the same report gives the same bytes.
type chart struct {
	Title, Note    string
	Width, Height  float64
	Left, Right    float64 // edges of the plot
	Top, Bottom    float64
	XTicks, YTicks []tick
	Lines          []line
	Empty          string // why there is nothing to see
}

type tick struct {
	At    float64
	Label string
}

type line struct {
	Name, Class string // Class picks the colour
	Path, Area  string
	Dots        []dot
}

type dot struct {
	X, Y float64
	Tip  string
}

// maxDots is how many points a line may have and still show them one by one.
const maxDots = 120

func newChart(title, note string) chart {
	return chart{Title: title, Note: note, Width: 640, Height: 300,
		Left: 64, Right: 608, Top: 14, Bottom: 264}
}

// scale maps [lo, hi] to pixels, evenly or by the logarithm.
type scale struct {
	lo, hi, from, to float64
	log              bool
}

func (s scale) at(v float64) float64 {
	lo, hi := s.lo, s.hi
	if s.log {
		v, lo, hi = math.Log10(max(v, lo)), math.Log10(lo), math.Log10(hi)
	}
	if hi == lo {
		return s.from
	}
	return math.Round((s.from+(v-lo)/(hi-lo)*(s.to-s.from))*10) / 10
}

// logScale covers the values with whole decades, or with halves of them when they are few.
func logScale(lo, hi, from, to float64) (scale, []tick) {
	lo, hi = max(lo, 0.001), max(hi, 0.002)
	steps := []float64{1, 2, 5}
	if math.Log10(hi/lo) > 3 {
		steps = []float64{1}
	}
	var marks []float64
	for decade := math.Floor(math.Log10(lo)); decade <= math.Ceil(math.Log10(hi)); decade++ {
		for _, step := range steps {
			marks = append(marks, step*math.Pow(10, decade))
		}
	}
	first, last := 0, len(marks)-1
	for first+1 < last && marks[first+1] <= lo {
		first++
	}
	for last-1 > first && marks[last-1] >= hi {
		last--
	}
	s := scale{marks[first], marks[last], from, to, true}
	var ticks []tick
	for _, m := range marks[first : last+1] {
		ticks = append(ticks, tick{s.at(m), tickDuration(m)})
	}
	return s, ticks
}

// tickDuration is a round number of microseconds without needless digits.
func tickDuration(us float64) string {
	number, unit, _ := strings.Cut(duration(us), " ")
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	return number + " " + unit
}

// evenScale covers [0, hi] in about parts round steps.
func evenScale(hi, from, to float64, parts int) (scale, []tick) {
	hi = max(hi, 1e-9)
	step := math.Pow(10, math.Floor(math.Log10(hi/float64(parts))))
	for _, f := range []float64{1, 2, 5, 10} {
		if step*f*float64(parts) >= hi {
			step *= f
			break
		}
	}
	n := math.Ceil(hi/step - 1e-9)
	s := scale{0, n * step, from, to, false}
	var ticks []tick
	for i := 0.0; i <= n; i++ {
		ticks = append(ticks, tick{s.at(i * step), short(i * step)})
	}
	return s, ticks
}

// short writes a number in few characters: 1.5M, 200k, 30.
func short(v float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= u.size {
			return strconv.FormatFloat(v/u.size, 'g', 4, 64) + u.name
		}
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// draw joins the dots. Long lines keep the path only. With area, the space below is filled too.
func (c *chart) draw(name, class string, dots []dot, area bool) {
	var path strings.Builder
	for i, d := range dots {
		verb := "L"
		if i == 0 {
			verb = "M"
		}
		fmt.Fprintf(&path, "%s%g %g", verb, d.X, d.Y)
	}
	l := line{Name: name, Class: class, Path: path.String()}
	if n := len(dots); area && n > 1 {
		l.Area = fmt.Sprintf("%sL%g %gL%g %gZ", l.Path, dots[n-1].X, c.Bottom, dots[0].X, c.Bottom)
	}
	if len(dots) <= maxDots {
		l.Dots = dots
	}
	c.Lines = append(c.Lines, l)
}

// percentileChart shows the whole distribution of each kind of operation. Each step to the right is
// one nine more, so the tail gets the room it deserves.
func percentileChart(r *Result) chart {
	c := newChart("Latency by percentile", r.Loop())
	lo, hi, nines := math.Inf(1), 0.0, 1.0
	for _, o := range r.Operations {
		for _, p := range o.Curve {
			lo, hi = min(lo, p.Micros), max(hi, p.Micros)
			nines = max(nines, -math.Log10(1-p.Quantile))
		}
	}
	if hi == 0 {
		c.Empty = "no operation succeeded"
		return c
	}
	x := scale{0, math.Ceil(nines), c.Left, c.Right, false}
	for n := 0.0; n <= x.hi; n++ {
		c.XTicks = append(c.XTicks, tick{x.at(n), percent(1 - math.Pow(10, -n))})
	}
	y, ticks := logScale(lo, hi, c.Bottom, c.Top)
	c.YTicks = ticks
	for _, o := range r.Operations {
		var dots []dot
		for _, p := range o.Curve {
			dots = append(dots, dot{
				x.at(-math.Log10(1 - p.Quantile)), y.at(p.Micros),
				fmt.Sprintf("%s %s: %s", o.Kind, percent(p.Quantile), duration(p.Micros)),
			})
		}
		c.draw(o.Kind, o.Kind, dots, false)
	}
	return c
}

// percent writes a quantile with as many digits as it has nines.
func percent(q float64) string {
	if q <= 0 {
		return "0 %"
	}
	if q >= 1 {
		return "100 %"
	}
	digits := max(0, int(math.Floor(-math.Log10(1-q)+1e-9))-1)
	text := strconv.FormatFloat(100*q, 'f', digits, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text + " %"
}

// timeAxis prepares the axis that the charts over time share: from 0 to the end of the run.
func timeAxis(c *chart, r *Result) scale {
	end := 1.0
	for _, v := range r.Series {
		end = max(end, v.StartSeconds+v.Seconds)
	}
	round, ticks := evenScale(end, 0, 1, 8)
	x := scale{0, end, c.Left, c.Right, false}
	for i := range ticks {
		at := round.hi * float64(i) / float64(len(ticks)-1)
		if at <= end {
			c.XTicks = append(c.XTicks, tick{x.at(at), strconv.FormatFloat(at, 'g', 6, 64) + " s"})
		}
	}
	return x
}

// middle is where an interval is drawn.
func (v *Interval) middle() float64 { return v.StartSeconds + v.Seconds/2 }

func throughputChart(r *Result) chart {
	c := newChart("Throughput over time", "operations per second")
	if len(r.Series) < 2 {
		c.Empty = "the run was too short for a series"
		return c
	}
	x := timeAxis(&c, r)
	top := 0.0
	for _, v := range r.Series {
		top = max(top, v.OpsPerSecond)
	}
	y, ticks := evenScale(top, c.Bottom, c.Top, 5)
	c.YTicks = ticks
	var dots []dot
	for _, v := range r.Series {
		dots = append(dots, dot{x.at(v.middle()), y.at(v.OpsPerSecond),
			fmt.Sprintf("%g s: %s/s", v.StartSeconds, count(v.OpsPerSecond))})
	}
	c.draw("ops/s", "rate", dots, true)
	return c
}

func latencyChart(r *Result) chart {
	c := newChart("Latency over time", "all operations, per interval")
	lo, hi := math.Inf(1), 0.0
	for _, v := range r.Series {
		if v.MaxMicros > 0 {
			lo, hi = min(lo, v.P50Micros), max(hi, v.MaxMicros)
		}
	}
	if len(r.Series) < 2 || hi == 0 {
		c.Empty = "the run was too short for a series"
		return c
	}
	x := timeAxis(&c, r)
	y, ticks := logScale(lo, hi, c.Bottom, c.Top)
	c.YTicks = ticks
	for _, l := range []struct {
		name, class string
		of          func(*Interval) float64
	}{
		{"max", "max", func(v *Interval) float64 { return v.MaxMicros }},
		{"p99", "tail", func(v *Interval) float64 { return v.P99Micros }},
		{"p50", "half", func(v *Interval) float64 { return v.P50Micros }},
	} {
		var dots []dot
		for i := range r.Series {
			v := &r.Series[i]
			if v.MaxMicros > 0 { // an interval in which nothing ended has no latency
				dots = append(dots, dot{x.at(v.middle()), y.at(l.of(v)),
					fmt.Sprintf("%s at %g s: %s", l.name, v.StartSeconds, duration(l.of(v)))})
			}
		}
		c.draw(l.name, l.class, dots, false)
	}
	return c
}

package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// fuzzTarget is one FuzzXxx.
type fuzzTarget struct{ pkg, name string }

var fuzzExecs = regexp.MustCompile(`execs: (\d+)`)

// fuzzAll gives each fuzz target of the module the same time.
func fuzzAll(ctx context.Context, name string, budget time.Duration) (result, error) {
	targets, err := fuzzTargets(ctx)
	if err != nil {
		return result{}, err
	}
	began := time.Now()
	r := result{part: name, figures: figures{"fuzz targets": int64(len(targets))}}
	each := max(budget/time.Duration(len(targets)), time.Second).Round(time.Second)
	for _, t := range targets {
		out, err := goCommand(ctx, "test", "-run", "^$", "-fuzz", "^"+t.name+"$",
			"-fuzztime", each.String(), t.pkg)
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		n := int64(0)
		if m := fuzzExecs.FindAllStringSubmatch(string(out), -1); m != nil {
			n, _ = strconv.ParseInt(m[len(m)-1][1], 10, 64) // digits
		}
		fmt.Printf("%24s %s %s\n", grouped(n), t.pkg, t.name)
		r.figures["fuzz executions"] += n
		if err != nil {
			r.failure += fmt.Sprintf("%s %s: %v\n%s", t.pkg, t.name, err, out)
		}
	}
	r.took = time.Since(began)
	return r, nil
}

// fuzzTargets asks the go command.
func fuzzTargets(ctx context.Context) ([]fuzzTarget, error) {
	out, err := goCommand(ctx, "test", "-list", "^Fuzz", "./...")
	if err != nil {
		return nil, fmt.Errorf("list fuzz targets: %w\n%s", err, out)
	}
	var targets []fuzzTarget
	var names []string
	lines(out, func(line string) {
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "Fuzz"):
			names = append(names, fields[0])
		case len(fields) > 1 && fields[0] == "ok":
			for _, name := range names {
				targets = append(targets, fuzzTarget{fields[1], name})
			}
			names = nil
		}
	})
	if len(targets) == 0 {
		return nil, fmt.Errorf("there are no fuzz targets:\n%s", out)
	}
	return targets, nil
}

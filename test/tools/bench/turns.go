package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/trimaran-io/trimaran/test/harness"
)

// startBeside starts another program's Trimaran.
func startBeside(b *bench, dir string) (*running, error) {
	if b.beside == "" {
		return nil, fmt.Errorf("-beside names no program")
	}
	return startNodes(b.beside, dir)
}

// inTurns starts all systems that -only asks for, and measures each load on each of them in turn,
// several times: whatever else the machine does, it does to all. What is compared are medians.
func (b *bench) inTurns() error {
	type part struct {
		system
		*running
		counter *harness.Counter
		todo    []shape
	}
	var parts []*part
	for _, s := range append(systems[:len(systems):len(systems)], system{name: "beside", what: "Trimaran, the program that -beside names", start: startBeside}) {
		p := &part{system: s, todo: b.loads(s)}
		if len(p.todo) == 0 {
			continue
		}
		b.count++
		dir := filepath.Join(b.diskDir, fmt.Sprintf("%s-%d", s.name, b.count))
		if err := os.Mkdir(dir, 0o777); err != nil {
			return err
		}
		var err error
		p.running, err = s.start(b, dir)
		if p.running != nil {
			defer p.stop()
		}
		if err == nil && p.warm > 0 {
			err = p.warmUp()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		p.counter = harness.NewCounter(p.processes...)
		parts = append(parts, p)
	}
	for _, l := range shapes {
		got := map[*part][]row{}
		var on []*part
		for _, p := range parts {
			if slices.ContainsFunc(p.todo, func(x shape) bool { return x.name == l.name }) {
				on = append(on, p)
			}
		}
		if len(on) == 0 {
			continue
		}
		fmt.Printf("\n%s (%s)\n", l.by(system{}), l.name)
		rowHeader("")
		for turn := range b.turns {
			for i := range on {
				p := on[i]
				if turn%2 == 1 { // A B B A
					p = on[len(on)-1-i]
				}
				r, err := b.one(p.running, l, p.counter)
				if err != nil {
					return fmt.Errorf("%s/%s: %w", p.name, l.name, err)
				}
				r.print(fmt.Sprintf("%s, turn %d", p.name, turn+1))
				got[p] = append(got[p], r)
			}
		}
		for _, p := range on {
			fmt.Printf("  %s, medians; beside %s's:\n", p.name, on[0].name)
			for _, f := range []struct {
				what string
				of   func(row) float64
			}{{"MB/s", row.mbs}, {"p50 ms", func(r row) float64 { return float64(r.P50.Microseconds()) / 1000 }}, {"CPU ms/MB", row.cpuPerMB},
				{"switches", func(r row) float64 { return r.Switches / r.Requests }}, {"writes", func(r row) float64 { return r.Writes / r.Requests }},
				{"messages", func(r row) float64 { return r.Messages / r.Requests }}} {
				mine, first := middle(got[p], f.of), middle(got[on[0]], f.of)
				fmt.Printf("    %-10s %9.2f %6.2f\n", f.what, mine, mine/first)
			}
		}
	}
	return nil
}

// middle is the median of a figure of rows.
func middle(rows []row, of func(row) float64) float64 {
	var all []float64
	for _, r := range rows {
		all = append(all, of(r))
	}
	slices.SortFunc(all, cmp.Compare)
	n := len(all)
	return (all[n/2] + all[(n-1)/2]) / 2
}

package main

import (
	"fmt"
	"time"
)

// aim is a figure beside what it should be.
type aim struct {
	what   string
	figure float64
	most   bool // the target is a maximum, else a minimum
	target float64
	known  bool
}

func (a aim) print() {
	relation, state := "≥", "not reached"
	if a.most {
		relation = "≤"
	}
	if a.most && a.figure <= a.target || !a.most && a.figure >= a.target {
		state = "reached"
	}
	if !a.known {
		fmt.Printf("  %-76s %9s %2s %-5g %s\n", a.what, "-", relation, a.target, "not measured")
		return
	}
	fmt.Printf("  %-76s %9.2f %2s %-5g %s\n", a.what, a.figure, relation, a.target, state)
}

// aims prints what one produce should cost beside the machine, itself and other systems.
func (b *bench) aims(rows map[string]row) {
	const most, least = true, false
	fmt.Println("\nWhat is to be reached (figures of one machine in one run; x is Trimaran's divided by the other's)")
	// ratio divides a figure of one row by the same, or another, of a second.
	ratio := func(what, a string, of func(row) float64, c string, by func(row) float64, atMost bool, target float64) {
		x, known := rows[a]
		y, also := rows[c]
		out := aim{what: what, most: atMost, target: target, known: known && also}
		if out.known {
			out.figure = of(x) / by(y)
		}
		out.print()
	}
	p50, unit := func(r row) float64 { return float64(r.P50) }, func(r row) float64 { return float64(max(r.Unit, time.Microsecond)) }
	switches, one := func(r row) float64 { return r.Switches / r.Requests }, func(row) float64 { return 1 }
	for _, l := range []string{"one-200", "one-500", "one-1000"} {
		ratio("context switches per record, "+l, "trimaran/"+l, switches, "trimaran/"+l, one, most, 30)
	}
	for _, l := range []string{"one-200", "one-500", "one-1000"} {
		ratio("CPU per record beside NATS as it comes, "+l, "trimaran/"+l, row.cpuPerRec, "nats/"+l, row.cpuPerRec, most, 0.7)
	}
	ratio("p50 of a record in (2 syncs + 2 round trips), raw", "trimaran/one-raw", p50, "trimaran/one-raw", unit, most, 1.2)
	ratio("p50 of a record in (2 syncs + 2 round trips), franz-go", "trimaran/one-franz", p50, "trimaran/one-franz", unit, most, 2)
	ratio("the same by franz-go at 500/s", "trimaran/one-500-franz", p50, "trimaran/one-500-franz", unit, most, 2)
	ratio("MB/s, 16 KB: franz-go x 5 in flight beside raw x 64", "trimaran/16k-franz-5", row.mbs, "trimaran/16k-raw-64", row.mbs, least, 0.7)
	ratio("MB/s, 16 KB: raw x 5 in flight beside raw x 64", "trimaran/16k-raw-5", row.mbs, "trimaran/16k-raw-64", row.mbs, least, 0.7)
	for _, n := range []string{"16", "100"} {
		ratio("MB/s, 16 KB: "+n+" partitions beside one, raw 2 x 64", "trimaran/16k-"+n+"-raw", row.mbs, "trimaran/16k-raw-2x64", row.mbs, least, 0.9)
		ratio("MB/s, 16 KB: "+n+" partitions by franz-go beside one, raw 2 x 64", "trimaran/16k-"+n+"-franz", row.mbs, "trimaran/16k-raw-2x64", row.mbs, least, 0.9)
	}
	for _, l := range []string{"1k-100-raw", "1k-100-franz"} {
		ratio("CPU per record beside one node of klite, 1 record a batch, "+l, "trimaran/"+l, row.cpuPerRec, "klite/"+l, row.cpuPerRec, most, 3.5)
	}
	for _, l := range []string{"16k-raw-5", "16k-raw-64", "16k-raw-2x64"} {
		ratio("MB/s beside NATS as it comes, "+l, "trimaran/"+l, row.mbs, "nats/"+l, row.mbs, least, 1.5)
		ratio("CPU per MB beside NATS as it comes, "+l, "trimaran/"+l, row.cpuPerMB, "nats/"+l, row.cpuPerMB, most, 0.5)
	}
	fmt.Println("  the shim, consumption, idle partitions and a start have their own: make bench, make bench-groups")
}

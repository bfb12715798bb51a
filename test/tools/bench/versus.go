package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// versusOptions are those of a run beside other systems.
type versusOptions struct {
	versus  bool
	quick   bool
	warm    time.Duration // of a system whose code is compiled while it runs
	klite   string        // a finished program
	results string        // file that keeps rows from one run to the next
	// how often each load is measured on each system, in turns; 0: once, system by system
	turns  int
	beside string // another program of the nodes
}

func (o *versusOptions) versusFlags() {
	flag.BoolVar(&o.versus, "versus", false, "measure this beside Kafka, NATS JetStream and klite; -only is about SYSTEM/LOAD then, as the rows name them")
	flag.BoolVar(&o.quick, "quick", false, "with -versus: one second for each load, and a third of the warm-up")
	flag.DurationVar(&o.warm, "warm", time.Minute, "with -versus: how long Kafka is warmed before it is measured, beside 5 s before each load")
	flag.StringVar(&o.klite, "klite", "", "with -versus: program of klite (default: go install of the pinned version)")
	flag.IntVar(&o.turns, "turns", 0, "with -versus: start all systems that -only asks for, and measure each load so often on each in turns")
	flag.StringVar(&o.beside, "beside", "", "with -turns, and in the section transaction: another program of the nodes, measured in turns with this one")
	flag.StringVar(&o.results, "results", "", "with -versus: file of rows; those in it that are not measured now count in the table, marked with *")
}

// row is what one load gave on one system. Requests are batches, or messages of NATS; a franz-go
// request to many partitions counts as the batches that it has.
type row struct {
	System, Load      string
	MB                float64 // of values of records
	Seconds           float64
	Records, Requests float64
	P50, P99          time.Duration
	CPU               time.Duration // of all server processes
	Switches, Writes  float64       // of them
	Messages          float64       // between nodes; 0: not counted
	Unit              time.Duration // two syncs and two round trips, as measured around the load
	earlier           bool          // from a file
}

func (r row) mbs() float64       { return r.MB / r.Seconds }
func (r row) cpuPerMB() float64  { return float64(r.CPU.Microseconds()) / 1000 / r.MB }
func (r row) cpuPerRec() float64 { return float64(r.CPU.Microseconds()) / 1000 / r.Records }
func (r row) key() string        { return r.System + "/" + r.Load }

// ms is "-" where a client does not say how long anything took.
func (r row) ms(d time.Duration) string {
	if r.P99 == 0 {
		return "-"
	}
	return ms(d)
}

func rowHeader(what string) {
	fmt.Printf("  %-40s %9s %11s %11s %11s %10s %11s %9s %6s\n", what, "MB/s", "records/s", "p50", "p99", "CPU ms/MB", "CPU ms/rec", "switches", "cores")
}

func (r row) print(what string) {
	if r.earlier {
		what = "* " + what
	}
	fmt.Printf("  %-40s %9.1f %11.0f %11s %11s %10.2f %11.3f %9.1f %6.2f\n", what, r.mbs(), r.Records/r.Seconds, r.ms(r.P50), r.ms(r.P99), r.cpuPerMB(), r.cpuPerRec(), r.Switches/r.Requests, r.CPU.Seconds()/r.Seconds)
}

// versus measures all systems, one after the other, and prints what is to be reached beside them.
func (b *bench) versus() error {
	if b.quick {
		b.window, b.warm = min(b.window, time.Second), b.warm/3
	}
	rows := map[string]row{}
	if err := readRows(b.results, rows); err != nil {
		return err
	}
	if err := b.printPaced(); err != nil {
		return err
	}
	fmt.Printf("  windows of %v, each after a quarter of that; what is dirty is written back before each\n", b.window)
	fmt.Println("  switches: context switches of all server processes per batch, or per message of NATS")
	fmt.Println("  to one partition all clients connect to the node that leads it, to many those of Trimaran and NATS to the first")
	if b.turns > 0 {
		return b.inTurns()
	}
	for _, s := range systems {
		todo := b.loads(s)
		if len(todo) == 0 {
			continue
		}
		fmt.Printf("\n%s\n", s.what)
		if err := b.measure(s, todo, rows); err != nil {
			// A system that cannot be had is left out; what was measured of it counts.
			fmt.Printf("  left out: %v\n", err)
			if s.name == "trimaran" {
				return err
			}
		}
		if err := writeRows(b.results, rows); err != nil {
			return err
		}
	}
	sideBySide(rows)
	b.aims(rows)
	fmt.Println("\nWhat the machine gives")
	return b.ceilings("at the end")
}

// loads are those that -only asks for on a system.
func (b *bench) loads(s system) (todo []shape) {
	for _, l := range shapes {
		if b.only.MatchString(s.name+"/"+l.name) && !(s.nats && l.notNATS) {
			todo = append(todo, l)
		}
	}
	return todo
}

// measure runs one system's loads.
func (b *bench) measure(s system, todo []shape, rows map[string]row) error {
	b.count++
	dir := filepath.Join(b.diskDir, fmt.Sprintf("%s-%d", s.name, b.count))
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	run, err := s.start(b, dir)
	if run != nil {
		defer run.stop()
	}
	if err != nil {
		return err
	}
	if run.warm > 0 {
		if err := run.warmUp(); err != nil {
			return fmt.Errorf("warm-up: %w", err)
		}
	}
	counter := harness.NewCounter(run.processes...)
	rowHeader("")
	for _, l := range todo {
		r, err := b.one(run, l, counter)
		if err != nil {
			fmt.Printf("  %-40s failed: %v\n", l.by(s), err)
			continue
		}
		r.System = s.name
		rows[r.key()] = r
		r.print(l.by(s))
	}
	return nil
}

// one runs one load on a system that is there.
func (b *bench) one(run *running, l shape, counter *harness.Counter) (r row, err error) {
	d, err := run.driver(l)
	if err != nil {
		return r, err
	}
	defer d.close()
	if _, err := d.run(max(b.window/4, run.warm/12)); err != nil {
		return r, err
	}
	syscall.Sync()
	_, before, err := writers(b.diskDir, 1, 4<<10, 200*time.Millisecond)
	if err != nil {
		return r, err
	}
	messages, err := run.told()
	if err != nil {
		return r, err
	}
	first, err := counter.Read()
	if err != nil {
		return r, err
	}
	got, err := d.run(b.window)
	if err != nil {
		return r, err
	}
	last, err := counter.Read()
	if err != nil {
		return r, err
	}
	later, err := run.told()
	if err != nil {
		return r, err
	}
	_, after, err := writers(b.diskDir, 1, 4<<10, 200*time.Millisecond)
	if err != nil {
		return r, err
	}
	if got.records == 0 {
		return r, errors.New("nothing came through")
	}
	used := last.Minus(first)
	return row{Load: l.name, MB: got.mb(), Seconds: got.took.Seconds(), Records: float64(got.records), Requests: float64(got.records) / float64(l.perRequest()),
		P50: quantile(got.latency, 0.5), P99: quantile(got.latency, 0.99), CPU: used.CPU, Switches: float64(used.Switches()), Writes: float64(used.Writes), Messages: later - messages, Unit: before + after + 2*b.roundTrip}, nil
}

// told gives how many messages nodes have sent each other, 0 where nobody counts them.
func (r *running) told() (float64, error) {
	if r.messages == nil {
		return 0, nil
	}
	return r.messages()
}

// sideBySide prints all rows again, by load.
func sideBySide(rows map[string]row) {
	fmt.Println("\nSide by side")
	rowHeader("")
	for _, l := range shapes {
		if !slices.ContainsFunc(systems, func(s system) bool { _, ok := rows[s.name+"/"+l.name]; return ok }) {
			continue
		}
		fmt.Printf("  %s (%s)\n", l.by(system{}), l.name)
		for _, s := range systems {
			if r, ok := rows[s.name+"/"+l.name]; ok {
				r.print("  " + s.name)
			}
		}
	}
}

func readRows(path string, rows map[string]row) error {
	if path == "" {
		return nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &rows)
	}
	for k, r := range rows {
		r.earlier = true
		rows[k] = r
	}
	return err
}

func writeRows(path string, rows map[string]row) error {
	if path == "" {
		return nil
	}
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o666)
}

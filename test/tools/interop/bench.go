package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// bench is a running cluster and what is asked of it.
type bench struct {
	settings
	cluster    *harness.Cluster // nil with -against
	addrs      []string         // every broker's, or node's, own address
	driverAddr string           // where the driver itself looks at the cluster
	looks      []string         // and at each node
	shimAddr   string
	guard      *guard // nil without -secured
	work       string
}

// result is one cell of the table.
type result struct {
	Client    string   `json:"client"`
	Version   string   `json:"version"`
	Mode      string   `json:"mode"`
	Way       string   `json:"way"`                 // tcp or shim
	Pass      string   `json:"pass"`                // quiet or kill
	Mechanism string   `json:"mechanism,omitempty"` // with -secured
	Result    string   `json:"result"`
	Seconds   float64  `json:"seconds"`
	Codecs    []string `json:"codecs,omitempty"`
	Lacks     []string `json:"lacks,omitempty"` // codecs that it should have and was built without
	Reason    string   `json:"reason,omitempty"`
	Notes     []string `json:"notes,omitempty"`
}

// The results.
const (
	ok      = "ok"
	failed  = "FAIL"
	missing = "missing"

	// the client has no such mechanism to log in with
	impossible = "not possible"
)

// errDeadline ends a step that took too long.
var errDeadline = errors.New("the step's time is over")

// beside is how many rows run at once where nothing is killed: most of their time clients wait.
const beside = 2

// all runs every row. Without kills rows and ways in go side by side; a kill is felt by all, so
// with kills they go one after the other.
func (b *bench) all(ctx context.Context, rows []prepared) []result {
	var out []result
	passes := []string{"quiet"}
	if b.kill {
		passes = append(passes, "kill")
	}
	for _, pass := range passes {
		cells := make([][]result, len(rows))
		places := make(chan struct{}, beside)
		var wg sync.WaitGroup
		for i, r := range rows {
			takes := 1
			if r.alone || pass == "kill" {
				takes = beside
			}
			for range takes {
				places <- struct{}{}
			}
			wg.Go(func() {
				cells[i] = b.row(ctx, r, pass)
				for range takes {
					<-places
				}
			})
		}
		wg.Wait()
		for i, r := range rows {
			if r.run != nil && !r.transactions && pass == "kill" {
				continue // tools and applications have no such pass
			}
			out = append(out, cells[i]...)
		}
	}
	return out
}

// row runs one row by each way in.
func (b *bench) row(ctx context.Context, r prepared, pass string) []result {
	ways := b.waysOf(r)
	cells := make([]result, len(ways))
	var wg sync.WaitGroup
	for i, way := range ways {
		one := func() { cells[i] = b.cell(ctx, r, way, pass) }
		if pass == "kill" {
			one()
		} else {
			wg.Go(one)
		}
	}
	wg.Wait()
	return cells
}

// waysOf gives the ways in that the client has.
func (b *bench) waysOf(r prepared) []string {
	return slices.DeleteFunc(slices.Clone(b.ways), func(way string) bool { return r.noShim && way == "shim" })
}

func (b *bench) cell(ctx context.Context, r prepared, way, pass string) result {
	res := result{Client: r.name, Version: r.version, Mode: r.mode, Way: way, Pass: pass, Result: ok}
	if r.err != nil {
		res.Result, res.Reason = missing, r.err.Error()
		return res
	}
	if r.run != nil && !r.transactions && pass == "kill" {
		return res
	}
	if ctx.Err() != nil {
		res.Result, res.Reason = failed, "interrupted"
		return res
	}
	started := time.Now()
	dir := filepath.Join(b.work, strings.ReplaceAll(r.name, " ", "_")+"-"+r.mode+"-"+way+"-"+pass)
	run := &attempt{bench: b, prepared: r, way: way, pass: pass, dir: dir}
	err := run.do(ctx)
	run.end()
	res.Seconds, res.Codecs, res.Lacks, res.Notes = time.Since(started).Seconds(), run.wrote, run.lacks, run.notes
	if err != nil {
		res.Result, res.Reason = failed, err.Error()
		say("FAIL %s (%s, %s, %s): %v\n%s", r.name, r.mode, way, pass, err, run.tail(25))
	} else {
		say("ok   %s (%s, %s, %s) %.1f s %s", r.name, r.mode, way, pass, res.Seconds, strings.Join(run.notes, "; "))
	}
	return res
}

// bootstrap gives what the client is told: the shim, or all nodes, the one first
// that leads the topic's partition 0 when that is known.
func (b *bench) bootstrap(way string, first *harness.Node) string {
	if way == "shim" {
		return b.shimAddr
	}
	var out []string
	if first != nil {
		out = append(out, first.Addr())
	}
	for _, addr := range b.addrs {
		if first == nil || addr != first.Addr() {
			out = append(out, addr)
		}
	}
	return strings.Join(out, ",")
}

// verdict is the exit code: a failure fails, and on CI a missing client, or one that was built
// without a codec, too.
func verdict(results []result, ci bool) int {
	for _, r := range results {
		if r.Result == failed || ci && (r.Result == missing || len(r.Lacks) > 0) {
			return 1
		}
	}
	return 0
}

// table gives one line per client and mode, one column per way in and pass.
func table(results []result) string {
	type column struct{ way, pass string }
	type line struct{ client, version, mode string }
	var columns []column
	var lines []line
	cells := map[line]map[column]string{}
	codecs := map[line]string{}
	var below []string
	seen := map[string]bool{}
	for _, r := range results {
		c, l := column{r.Way, r.Pass}, line{r.Client, r.Version, r.Mode}
		known := false
		for _, have := range columns {
			known = known || have == c
		}
		if !known {
			columns = append(columns, c)
		}
		if cells[l] == nil {
			cells[l] = map[column]string{}
			lines = append(lines, l)
		}
		cells[l][c] = r.Result
		if have := strings.Join(r.Codecs, " "); len(have) > len(codecs[l]) {
			codecs[l] = have
		}
		if r.Result != missing {
			cells[l][c] = fmt.Sprintf("%-4s %5.1f s", r.Result, r.Seconds)
		}
		for _, text := range append([]string{r.Reason}, r.Notes...) {
			if first, _, _ := strings.Cut(text, "\n"); first != "" {
				note := fmt.Sprintf("%s, %s: %s", r.Client, r.Mode, first)
				if !seen[note] {
					seen[note] = true
					below = append(below, note)
				}
			}
		}
	}
	rows := [][]string{{"client", "version", "mode"}}
	for _, c := range columns {
		head := map[string]string{"tcp": "TCP", "shim": "shim"}[c.way]
		if c.pass == "kill" {
			head += ", kill -9"
		}
		rows[0] = append(rows[0], head)
	}
	rows[0] = append(rows[0], "codecs")
	for _, l := range lines {
		cols := []string{l.client, l.version, l.mode}
		for _, c := range columns {
			cell := cells[l][c]
			if cell == "" {
				cell = "-"
			}
			cols = append(cols, cell)
		}
		cols = append(cols, codecs[l])
		rows = append(rows, cols)
	}
	return aligned(rows, below)
}

// aligned gives rows in columns, and remarks below them.
func aligned(rows [][]string, below []string) string {
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			widths[i] = max(widths[i], len(c))
		}
	}
	var out strings.Builder
	for _, r := range rows {
		var text strings.Builder
		for i, c := range r {
			fmt.Fprintf(&text, "%-*s  ", widths[i], c)
		}
		out.WriteString(strings.TrimRight(text.String(), " ") + "\n")
	}
	for _, n := range below {
		out.WriteString("  " + n + "\n")
	}
	return out.String()
}

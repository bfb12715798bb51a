package main

import (
	"fmt"
	"strings"
)

// securedTable gives one line per client and mechanism, one column per way in and pass.
func securedTable(results []result) string {
	type line struct{ client, version, mechanism string }
	columns := []struct{ way, pass, head string }{
		{"tcp", "quiet", "TLS to a node"}, {"shim", "quiet", "TLS to the shim"}, {"shim", "kill", "shim, kill -9 of each node"},
	}
	rows := [][]string{{"client", "version", "mechanism"}}
	for _, c := range columns {
		rows[0] = append(rows[0], c.head)
	}
	at := map[line]int{}
	var below []string
	seen := map[string]bool{}
	for _, r := range results {
		l := line{r.Client, r.Version, r.Mechanism}
		if at[l] == 0 {
			at[l] = len(rows)
			rows = append(rows, []string{l.client, l.version, l.mechanism, "-", "-", "-"})
		}
		for i, c := range columns {
			if c.way != r.Way || c.pass != r.Pass {
				continue
			}
			cell := r.Result
			if r.Result == ok || r.Result == failed {
				cell = fmt.Sprintf("%-4s %5.1f s", r.Result, r.Seconds)
			}
			rows[at[l]][3+i] = cell
		}
		for _, text := range append([]string{r.Reason}, r.Notes...) {
			first, _, _ := strings.Cut(text, "\n")
			if note := fmt.Sprintf("%s: %s", r.Client, first); first != "" && !seen[note] {
				seen[note] = true
				below = append(below, note)
			}
		}
	}
	return aligned(rows, below)
}

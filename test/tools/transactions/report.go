package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// report says what was done and what was found.
func (w *world) report(out io.Writer, d *disturber) {
	h := w.h
	h.mu.Lock()
	defer h.mu.Unlock()
	var fates [4]int
	records := 0
	for _, t := range h.transactions {
		fates[t.fate]++
		if t.fate == committed {
			records += len(t.partitions)
		}
	}
	fmt.Fprintf(out, "\ntransactions   %d committed (%d records), %d aborted, %d of unknown fate\n", fates[committed], records, fates[aborted], fates[unknown]+fates[open])
	fmt.Fprintf(out, "ring           %d messages, %d transactions of workers committed, %d aborted with offsets in them\n",
		len(h.messages), len(h.works), h.givenUp)
	fmt.Fprintf(out, "disturbances   %s\n", d)
	fmt.Fprintf(out, "late requests  %s\n", w.lateRequests())
	if n := w.asleep.Load(); n > 0 {
		fmt.Fprintf(out, "asleep         %d producers, which were replaced (a fault of franz-go's, see asleep.go)\n", n)
	}
	fmt.Fprintf(out, "write cycles   %d (Kafka does not order writes of transactions that overlap)\n", h.cycles)
	fmt.Fprintf(out, "error codes    %s\n", w.trouble.byCode())
	few := 12
	w.trouble.each(func(what string, n int) {
		if few--; few >= 0 {
			fmt.Fprintf(out, "clients told   %6d × %s\n", n, printable(what))
		}
	})
	if len(h.found) == 0 {
		fmt.Fprintln(out, "anomalies      none")
		return
	}
	for _, kind := range slices.Sorted(maps.Keys(h.found)) {
		found := h.found[kind]
		fmt.Fprintf(out, "ANOMALY        %6d × %s\n", len(found), kind)
		for _, example := range found[:min(len(found), 5)] {
			fmt.Fprintf(out, "               %s\n", printable(example))
		}
	}
}

// lateRequests says how many came late, by kind.
func (w *world) lateRequests() string {
	w.lateMu.Lock()
	defer w.lateMu.Unlock()
	return times(w.lates)
}

// times says how often there was what.
func times(of map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(of)) {
		all = append(all, fmt.Sprintf("%d × %s", of[name], name))
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

// printable keeps what a server said from moving the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

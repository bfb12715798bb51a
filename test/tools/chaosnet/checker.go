package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// history is what clients were told, and the anomalies in it. Some are seen as they happen, by who
// is told something that cannot be; the rest when the log is read back.
//
//	lost-write                   acknowledged, and not in the log at its offset
//	aborted-read (G1a)           in the log, although the answer said that it surely is not
//	unwritten-read               in the log, and nobody sent it
//	duplicate                    in the log twice, and sent once
//	inconsistent-offsets         two values at one offset, told by an acknowledgement, a reader or
//	                             a node
//	nonmonotonic-poll            a reader is given an offset again
//	int-poll-skip                a reader is not given an offset
//	offset-out-of-range          an end that was known before is said not to be there
//	nonmonotonic-latest          the latest offset, or the end of the log that is read back, is
//	                             below what was known before it was asked for: also where what a
//	                             reader was given is gone
//	nonmonotonic-high-watermark  the same, in the answer to a fetch
//	lost-commit                  an offset of a group that is neither the last acknowledged one nor
//	                             one of unknown fate
//	corrupt, no-latest           what is not an answer at all
type history struct {
	began time.Time

	mu         sync.Mutex
	partitions []*partitionHistory
	found      map[string][]string // by anomaly
	nodes      map[string]*served  // by node
}

type partitionHistory struct {
	sent    map[string]bool
	refused map[string]bool
	at      map[int64]string // what was told to be at an offset, by whomever
	by      map[int64]string // who told it first
	acked   map[int64]string
	known   int64 // the end, as far as some completed answer has told it
	logs    map[string][]string
	last    time.Time     // of the last acknowledgement
	silence time.Duration // longest time between two
}

// served is what producers got from one node, for the monitor.
type served struct {
	acknowledged, failed int
	lastAck, lastFailure time.Time
}

func newHistory(partitions int) *history {
	h := &history{began: time.Now(), found: map[string][]string{}, nodes: map[string]*served{}}
	for range partitions {
		h.partitions = append(h.partitions, &partitionHistory{
			sent: map[string]bool{}, refused: map[string]bool{}, at: map[int64]string{}, by: map[int64]string{}, acked: map[int64]string{},
			logs: map[string][]string{}, last: time.Now(),
		})
	}
	return h
}

func (h *history) anomaly(name, format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.anomalyLocked(name, format, args...)
}

func (h *history) anomalyLocked(name, format string, args ...any) {
	h.found[name] = append(h.found[name], fmt.Sprintf("%.1f s: ", time.Since(h.began).Seconds())+fmt.Sprintf(format, args...))
}

func (h *history) node(id string) *served {
	if h.nodes[id] == nil {
		h.nodes[id] = &served{}
	}
	return h.nodes[id]
}

func (h *history) sent(p int32, value string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.partitions[p].sent[value] = true
}

// refused notes that a value is surely not in the log, as NOT_LEADER_FOR_PARTITION promises here.
func (h *history) refused(p int32, value, node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.partitions[p].refused[value] = true
	h.failedLocked(node)
}

// unknown notes that a request had no answer, or one that leaves open what became of it.
func (h *history) unknown(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failedLocked(node)
}

func (h *history) failedLocked(node string) {
	s := h.node(node)
	s.failed++
	s.lastFailure = time.Now()
}

func (h *history) acknowledged(p int32, value string, offset int64, node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	part, now := h.partitions[p], time.Now()
	h.isAtLocked(p, offset, value, "an acknowledgement by "+node)
	part.acked[offset] = value
	part.known = max(part.known, offset+1)
	part.silence = max(part.silence, now.Sub(part.last))
	part.last = now
	s := h.node(node)
	s.acknowledged++
	s.lastAck = now
}

func (h *history) isAtLocked(p int32, offset int64, value, who string) {
	part := h.partitions[p]
	old, ok := part.at[offset]
	if !ok {
		part.at[offset], part.by[offset] = value, who
	} else if old != value {
		h.anomalyLocked("inconsistent-offsets", "partition %d, offset %d: %q by %s, %q by %s", p, offset, old, part.by[offset], value, who)
	}
}

func (h *history) read(p int32, offset int64, value, node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.isAtLocked(p, offset, value, "a reader through "+node)
	h.partitions[p].known = max(h.partitions[p].known, offset+1)
}

// seen notes an end of which some answer has told.
func (h *history) seen(p int32, end int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.partitions[p].known = max(h.partitions[p].known, end)
}

// end gives the largest end that is known now: a question that is asked from now on may
// not be answered with a smaller one.
func (h *history) end(p int32) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.partitions[p].known
}

func (h *history) acknowledgedEach() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	var n []int
	for _, p := range h.partitions {
		n = append(n, len(p.acked))
	}
	return n
}

// final is a partition's log as one node gives it in the end.
func (h *history) final(p int32, node string, log []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.partitions[p].logs[node] = log
}

// verdict is what is found.
type verdict struct {
	found        map[string][]string
	acknowledged int
	refused      int
	unanswered   int
	silence      time.Duration
}

// judge compares the logs that were read back with what clients were told.
func (h *history) judge() verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := verdict{found: h.found}
	for i, part := range h.partitions {
		p := int32(i)
		v.silence = max(v.silence, part.silence)
		v.acknowledged += len(part.acked)
		v.refused += len(part.refused)
		for _, node := range slices.Sorted(maps.Keys(part.logs)) {
			log := part.logs[node]
			first := map[string]int{}
			for offset, value := range log {
				switch at, again := first[value]; {
				case again:
					h.anomalyLocked("duplicate", "partition %d: %q is at %d and at %d through %s", p, value, at, offset, node)
				case !part.sent[value]:
					h.anomalyLocked("unwritten-read", "partition %d: %q at %d through %s", p, value, offset, node)
				case part.refused[value]:
					h.anomalyLocked("aborted-read", "partition %d: %q is at %d through %s, and was said not to be in the log", p, value, offset, node)
				}
				first[value] = offset
				h.isAtLocked(p, int64(offset), value, "the log read back through "+node)
			}
			if end := int64(len(log)); end < part.known {
				h.anomalyLocked("nonmonotonic-latest", "partition %d: the end was known to be %d, and the log read back through %s ends at %d", p, part.known, node, end)
			}
			for _, offset := range slices.Sorted(maps.Keys(part.acked)) {
				if int(offset) >= len(log) || log[offset] != part.acked[offset] {
					h.anomalyLocked("lost-write", "partition %d: %q was acknowledged at %d and is not there through %s, whose log ends at %d", p, part.acked[offset], offset, node, len(log))
				}
			}
		}
		if len(part.logs) == 0 {
			h.anomalyLocked("lost-write", "partition %d was not read back", p)
		}
	}
	for _, s := range h.nodes {
		v.unanswered += s.failed
	}
	v.unanswered -= v.refused
	return v
}

func (v verdict) good() bool { return len(v.found) == 0 }

func (v verdict) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d values acknowledged, %d refused, %d of unknown fate; longest silence of a partition %.1f s\n", v.acknowledged, v.refused, v.unanswered, v.silence.Seconds())
	for _, name := range slices.Sorted(maps.Keys(v.found)) {
		list := v.found[name]
		fmt.Fprintf(&b, "%s: %d\n", name, len(list))
		for _, example := range list[:min(len(list), 5)] {
			fmt.Fprintf(&b, "  %s\n", example)
		}
	}
	return b.String()
}

// commits are the offsets that one client committed to a group, each larger than those before. One
// of unknown fate may come late, over what was committed since: a cut connection's request may
// still reach its node, and a broker that has read a request does it. It comes once at most.
type commits struct {
	acknowledged int64 // the last that was, -1: none
	unknown      map[int64]bool
	late         int64 // one of unknown that was seen since acknowledged; -1: none
}

func newCommits() *commits { return &commits{-1, map[int64]bool{}, -1} }

func (c *commits) answered(offset int64, err error) {
	if err != nil {
		c.unknown[offset] = true
		return
	}
	c.acknowledged = offset
	delete(c.unknown, c.late)
	c.late = -1
}

// fetched says whether the group may have that offset now.
func (c *commits) fetched(offset int64) bool {
	if c.unknown[offset] {
		if c.late >= 0 && c.late != offset {
			delete(c.unknown, c.late)
		}
		c.late = offset
		return true
	}
	return offset == c.acknowledged && c.late < 0
}

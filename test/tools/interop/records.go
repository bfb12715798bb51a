package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
)

// header is what every client adds to every record, where its mode has headers.
const header = "h=interop"

// keys is the number of different keys; each has its records in one partition, in order.
const keys = 97

// record is one that was handed to a client, or came back from one. Key and value
// are any bytes but tab, line feed and carriage return, which part the lines that
// a client reads and writes.
type record struct {
	partition int32
	offset    int64
	key       string
	value     string
	headers   string
}

// batch gives n records. The same seed gives the same ones; the name makes them
// differ from those of other batches.
func batch(name string, n int) []record {
	h := uint64(14695981039346656037)
	for _, c := range []byte(name) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	r := rand.New(rand.NewPCG(h, uint64(n)))
	out := make([]record, n)
	for i := range out {
		v := fmt.Appendf(nil, "%s %06d ", name, i)
		switch i % 4 {
		case 0: // text that compresses
			v = append(v, bytes.Repeat([]byte("the same again, "), r.IntN(20))...)
		case 1: // any byte
			for range r.IntN(200) {
				if c := byte(r.Uint32()); c != '\t' && c != '\n' && c != '\r' {
					v = append(v, c)
				}
			}
		case 2:
			v = append(v, "Grüße, 你好, ⛵"...)
		}
		out[i] = record{key: fmt.Sprintf("key-%02d", i%keys), value: string(v)}
	}
	return out
}

// lines gives records as a client reads them: key, tab, value, one per line.
func lines(records []record) []byte {
	var b bytes.Buffer
	for _, r := range records {
		b.WriteString(r.key + "\t" + r.value + "\n")
	}
	return b.Bytes()
}

// parseRecord reads a line that a client wrote: partition, offset, key, value and,
// where there are headers, those, with tabs between them.
func parseRecord(line []byte) (record, error) {
	f := bytes.Split(line, []byte{'\t'})
	if len(f) < 4 || len(f) > 5 {
		return record{}, fmt.Errorf("not a record: %.80q", line)
	}
	p, err := strconv.ParseInt(string(f[0]), 10, 32)
	if err != nil {
		return record{}, fmt.Errorf("not a record: %.80q", line)
	}
	o, err := strconv.ParseInt(string(f[1]), 10, 64)
	if err != nil {
		return record{}, fmt.Errorf("not a record: %.80q", line)
	}
	r := record{partition: int32(p), offset: o, key: string(f[2]), value: string(f[3])}
	if len(f) == 5 {
		r.headers = string(f[4])
	}
	return r, nil
}

// rules say what a check may forgive.
type rules struct {
	headers   bool // every record must have the header
	repeats   bool // a record may be read twice: at least once is promised
	doubled   bool // a record may be in the log twice: the producer is not idempotent
	unordered bool // a producer that tries again without being idempotent may change the order
}

// check compares what was read with what was written. Every record must be there
// byte by byte, nothing else, each key in one partition and in the order in which
// it was written. It gives the number of records that came twice.
func check(written, read []record, r rules) (repeats int, err error) {
	want := map[string][]string{}
	for _, w := range written {
		want[w.key] = append(want[w.key], w.value)
	}
	type place struct {
		partition int32
		offset    int64
	}
	at := map[place]record{}
	home := map[string]int32{}
	got := map[string][]string{}
	have := map[string]bool{}
	for _, g := range read {
		if want[g.key] == nil {
			return 0, fmt.Errorf("partition %d offset %d has key %.40q, which nobody wrote", g.partition, g.offset, g.key)
		}
		if r.headers && g.headers != header {
			return 0, fmt.Errorf("partition %d offset %d has headers %.40q, want %q", g.partition, g.offset, g.headers, header)
		}
		p := place{g.partition, g.offset}
		if before, ok := at[p]; ok {
			if before.key != g.key || before.value != g.value {
				return 0, fmt.Errorf("partition %d offset %d was read twice and differs", g.partition, g.offset)
			}
			if repeats++; !r.repeats {
				return 0, fmt.Errorf("partition %d offset %d was read twice", g.partition, g.offset)
			}
			continue
		}
		at[p] = g
		if h, ok := home[g.key]; ok && h != g.partition {
			return 0, fmt.Errorf("key %q is in partitions %d and %d", g.key, h, g.partition)
		}
		home[g.key] = g.partition
		if have[g.value] {
			if !r.doubled {
				return 0, fmt.Errorf("doubled: %.60q is in the log again at partition %d offset %d", g.value, g.partition, g.offset)
			}
			repeats++
			continue
		}
		have[g.value] = true
		got[g.key] = append(got[g.key], g.value)
	}
	for k, values := range want {
		if len(got[k]) != len(values) {
			for _, v := range values {
				if !have[v] {
					return 0, fmt.Errorf("lost: %.60q of key %q (%d of its %d records came)", v, k, len(got[k]), len(values))
				}
			}
			return 0, fmt.Errorf("key %q has %d records, want %d", k, len(got[k]), len(values))
		}
		for i, v := range values {
			if !have[v] {
				return 0, fmt.Errorf("lost or changed: %.60q of key %q; there is %.60q", v, k, got[k][i])
			}
			if got[k][i] != v && !r.unordered {
				return 0, fmt.Errorf("order: record %d of key %q is %.60q, want %.60q", i, k, got[k][i], v)
			}
		}
	}
	return repeats, nil
}

package main

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// told is a history of one partition: a and b acknowledged at 0 and 1, c of unknown fate, d
// refused.
func told() *history {
	h := newHistory(1)
	for _, v := range []string{"a", "b", "c", "d"} {
		h.sent(0, v)
	}
	h.acknowledged(0, "a", 0, "n1")
	h.acknowledged(0, "b", 1, "n2")
	h.unknown("n1")
	h.refused(0, "d", "n1")
	return h
}

func TestTheCheckerNamesEachAnomaly(t *testing.T) {
	for name, test := range map[string]struct {
		logs map[string][]string
		want []string
	}{
		"as told":                           {map[string][]string{"n1": {"a", "b"}, "n2": {"a", "b"}}, nil},
		"unknown fate is in the log":        {map[string][]string{"n1": {"a", "b", "c"}}, nil},
		"the end is missing":                {map[string][]string{"n1": {"a"}}, []string{"lost-write", "nonmonotonic-latest"}},
		"missing at one node":               {map[string][]string{"n1": {"a", "b"}, "n2": {"a"}}, []string{"lost-write", "nonmonotonic-latest"}},
		"another value is there":            {map[string][]string{"n1": {"a", "c", "b"}}, []string{"inconsistent-offsets", "lost-write"}},
		"one is there twice":                {map[string][]string{"n1": {"a", "b", "a"}}, []string{"duplicate"}},
		"a refused one is there":            {map[string][]string{"n1": {"a", "b", "d"}}, []string{"aborted-read"}},
		"nobody sent it":                    {map[string][]string{"n1": {"a", "b", "x"}}, []string{"unwritten-read"}},
		"nodes differ behind what is known": {map[string][]string{"n1": {"a", "b", "c"}, "n2": {"a", "b", "x"}}, []string{"inconsistent-offsets", "unwritten-read"}},
		"nothing was read back":             {nil, []string{"lost-write"}},
	} {
		h := told()
		for node, log := range test.logs {
			h.final(0, node, log)
		}
		v := h.judge()
		if got := slices.Sorted(maps.Keys(v.found)); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
		if v.acknowledged != 2 || v.refused != 1 || v.unanswered != 1 {
			t.Errorf("%s: %s", name, v)
		}
	}
}

// A value of unknown fate that a reader was given, or an end that somebody was told, may not be
// gone in the end.
func TestWhatAReaderWasGivenMustBeThereInTheEnd(t *testing.T) {
	for name, tell := range map[string]func(h *history){
		"a record": func(h *history) { h.read(0, 2, "c", "n3") },
		"an end":   func(h *history) { h.seen(0, 3) },
	} {
		h := told()
		tell(h)
		h.final(0, "n1", []string{"a", "b"})
		if got := slices.Sorted(maps.Keys(h.judge().found)); !slices.Equal(got, []string{"nonmonotonic-latest"}) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAReaderAndAnAcknowledgementThatDifferAreSeenAtOnce(t *testing.T) {
	h := told()
	h.read(0, 1, "b", "n3")
	if len(h.found) > 0 {
		t.Error(h.found)
	}
	h.read(0, 1, "c", "n3")
	if list := h.found["inconsistent-offsets"]; len(list) != 1 || !strings.Contains(list[0], "n3") {
		t.Error(h.found)
	}
	if h.seen(0, 7); h.end(0) != 7 {
		t.Error(h.end(0))
	}
	if h.seen(0, 3); h.end(0) != 7 {
		t.Error("the known end went back")
	}
}

// A packet of TCP from 10.93.18.1:1000 to 10.93.18.2:9092 with 3 bytes.
func packet() []byte {
	b := make([]byte, 43)
	b[0], b[9] = 0x45, protocolTCP
	copy(b[12:], []byte{10, 93, 18, 1, 10, 93, 18, 2})
	binary.BigEndian.PutUint16(b[20:], 1000)
	binary.BigEndian.PutUint16(b[22:], 9092)
	binary.BigEndian.PutUint32(b[24:], 5000) // sequence
	binary.BigEndian.PutUint32(b[28:], 7000) // acknowledgement
	b[32], b[33] = 5<<4, tcpACK
	return b
}

func TestAResetIsOneThatTheSenderBelieves(t *testing.T) {
	r := resetOf(packet(), 20)
	if binary.BigEndian.Uint32(r[24:]) != 7000 || binary.BigEndian.Uint32(r[28:]) != 5003 || r[33]&tcpRST == 0 {
		t.Errorf("% x", r)
	}
	if src, dst := [4]byte(r[12:16]), [4]byte(r[16:20]); src != [4]byte{10, 93, 18, 2} || dst != [4]byte{10, 93, 18, 1} {
		t.Errorf("% x", r)
	}
	if checksum(r[:20], 0) != 0 {
		t.Error("the checksum of IP is wrong")
	}
	pseudo := uint32(0)
	for i := 12; i < 20; i += 2 {
		pseudo += uint32(binary.BigEndian.Uint16(r[i:]))
	}
	if checksum(r[20:], pseudo+protocolTCP+20) != 0 {
		t.Error("the checksum of TCP is wrong")
	}
}

func TestRulesDecideWhatPasses(t *testing.T) {
	a, b, c := hostAddr(1), hostAddr(2), hostAddr(3)
	for name, test := range map[string]struct {
		rule rule
		want bool // a packet from a:1000 to b:9092 passes
	}{
		"none":               {rule{from: c, lose: 1}, true},
		"everything":         {rule{lose: 1}, false},
		"from a":             {rule{from: a, lose: 1}, false},
		"to a":               {rule{to: a, lose: 1}, true},
		"from a to b":        {rule{from: a, to: b, lose: 1}, false},
		"from b to a":        {rule{from: b, to: a, lose: 1}, true},
		"its port":           {rule{to: b, port: 9092, lose: 1}, false},
		"another port":       {rule{to: b, port: 9192, lose: 1}, true},
		"a reset of all":     {rule{from: a, reset: 1}, false},
		"a delay of no time": {rule{most: 0}, true},
	} {
		n := &network{ports: map[netip.Addr]*port{}, dice: rand.New(rand.NewPCG(1, 1))}
		for _, addr := range []netip.Addr{a, b} {
			n.ports[addr] = &port{addr: addr, lines: make(chan []byte, 4)}
		}
		end := n.apply(&test.rule)
		n.route(n.ports[a], packet())
		if got := len(n.ports[b].lines) == 1; got != test.want {
			t.Errorf("%s: passes %v", name, got)
		}
		if reset := len(n.ports[a].lines) == 1; reset != (test.rule.reset > 0) {
			t.Errorf("%s: answered with a reset: %v", name, reset)
		}
		end()
		if len(n.rules) > 0 {
			t.Errorf("%s: the rule stays", name)
		}
	}
}

func TestGaugesAreAddedUp(t *testing.T) {
	page := "# HELP x y\nx 1\nx{a=\"b c\"} 2.5\nxy 7\n"
	if got := gauge(page, "x"); got != 3.5 {
		t.Error(got)
	}
}

package hostnet

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func address(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 93, 18, byte(i)}) }

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
	a, b, c := address(1), address(2), address(3)
	for name, test := range map[string]struct {
		rule Rule
		want bool // a packet from a:1000 to b:9092 passes
	}{
		"none":               {Rule{From: c, Lose: 1}, true},
		"everything":         {Rule{Lose: 1}, false},
		"from a":             {Rule{From: a, Lose: 1}, false},
		"to a":               {Rule{To: a, Lose: 1}, true},
		"from a to b":        {Rule{From: a, To: b, Lose: 1}, false},
		"from b to a":        {Rule{From: b, To: a, Lose: 1}, true},
		"its port":           {Rule{To: b, Port: 9092, Lose: 1}, false},
		"another port":       {Rule{To: b, Port: 9192, Lose: 1}, true},
		"a reset of all":     {Rule{From: a, Reset: 1}, false},
		"a delay of no time": {Rule{Most: 0}, true},
	} {
		n := &Network{ports: map[netip.Addr]*port{}, dice: rand.New(rand.NewPCG(1, 1))}
		for _, addr := range []netip.Addr{a, b} {
			n.ports[addr] = &port{addr: addr, lines: make(chan []byte, 4)}
		}
		end := n.Apply(&test.rule)
		n.route(n.ports[a], packet())
		if got := len(n.ports[b].lines) == 1; got != test.want {
			t.Errorf("%s: passes %v", name, got)
		}
		if reset := len(n.ports[a].lines) == 1; reset != (test.rule.Reset > 0) {
			t.Errorf("%s: answered with a Reset: %v", name, reset)
		}
		end()
		if len(n.rules) > 0 {
			t.Errorf("%s: the rule stays", name)
		}
	}
}

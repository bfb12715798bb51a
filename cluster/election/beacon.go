package election

import (
	"encoding/binary"
	"errors"

	"github.com/trimaran-io/trimaran/cluster/link/wire"
)

// A beacon is what a node tells each other node every Config.BeaconInterval,
// on the control connection that it dialed. The frame's id counts a node's beacons
// to that other node, from 1 in each process; the body is
//
//	u8   layout, 1
//	u64  boot of the process whose beacon is echoed, 0 for none seen
//	u64  the last of that process's beacons that was seen before the raft groups were looked at
//	uvarint count, then so many: u8 length and identity: nodes that the sender holds for gone
//	uvarint count, then so many: u8 length and name: raft groups that are claimed no more
//	uvarint count, then so many: u8 kind, u64 term, uvarint instance, u8 length and name: claims
//
// Withdrawals and claims are what changed since the sender's last beacon of the
// same session; a new session begins with none. Bytes behind what is known are
// ignored. docs/peer-link.md says what may be concluded from a beacon, and why.
const (
	beaconLayout uint8 = 1

	claimFollows uint8 = 1 // the sender is a follower in that term and its leader is the receiver
	claimLeads   uint8 = 2 // the sender leads in that term

	// maxSuspects and maxClaims bound what one other node can make this one remember.
	maxSuspects = 1024
	maxClaims   = 1 << 17
)

// claim is what a node says of one group. The zero claim says nothing.
type claim struct {
	kind uint8
	term uint64
	// instance tells a raft group that was closed and opened again from one that stayed open.
	instance uint64
}

type namedClaim struct {
	group string
	claim
}

type beacon struct {
	echoBoot, echoSeq uint64
	suspects          []string
	withdrawn         []string
	claims            []namedClaim
}

func (s *beacon) encode() []byte {
	b := make([]byte, 0, 32+48*(len(s.withdrawn)+len(s.claims)))
	b = append(b, beaconLayout)
	b = binary.BigEndian.AppendUint64(b, s.echoBoot)
	b = binary.BigEndian.AppendUint64(b, s.echoSeq)
	b = binary.AppendUvarint(b, uint64(len(s.suspects)))
	for _, id := range s.suspects {
		b = wire.AppendName(b, id)
	}
	b = binary.AppendUvarint(b, uint64(len(s.withdrawn)))
	for _, name := range s.withdrawn {
		b = wire.AppendName(b, name)
	}
	b = binary.AppendUvarint(b, uint64(len(s.claims)))
	for _, c := range s.claims {
		b = append(b, c.kind)
		b = binary.BigEndian.AppendUint64(b, c.term)
		b = binary.AppendUvarint(b, c.instance)
		b = wire.AppendName(b, c.group)
	}
	return b
}

var errBeacon = errors.New("malformed beacon")

func decodeBeacon(b []byte) (beacon, error) {
	var s beacon
	d := wire.Decoder{B: b}
	layout := d.U8()
	s.echoBoot, s.echoSeq = d.U64(), d.U64()
	if d.Bad || layout != beaconLayout {
		return s, errBeacon
	}
	// least is what one element takes: nothing is allocated on the word of a count alone.
	count := func(least, most uint64) int {
		n := d.Uvarint()
		if d.Bad || n > most || n*least > uint64(len(d.B)) {
			d.Bad = true
			return 0
		}
		return int(n)
	}
	if n := count(1, maxSuspects); n > 0 {
		s.suspects = make([]string, n)
		for i := range s.suspects {
			s.suspects[i] = d.Name()
		}
	}
	if n := count(1, maxClaims); n > 0 {
		s.withdrawn = make([]string, n)
		for i := range s.withdrawn {
			s.withdrawn[i] = d.Name()
		}
	}
	if n := count(11, maxClaims); n > 0 {
		s.claims = make([]namedClaim, n)
		for i := range s.claims {
			c := &s.claims[i]
			c.kind, c.term, c.instance = d.U8(), d.U64(), d.Uvarint()
			c.group = d.Name()
		}
	}
	if d.Bad {
		return s, errBeacon
	}
	return s, nil
}

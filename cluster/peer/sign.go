package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// A sign of life is what a node tells each other node every Config.SignInterval,
// on the control connection that it dialed. The frame's id counts a node's signs
// to that other node, from 1 in each process; the body is
//
//	u8   layout, 1
//	u64  boot of the process whose sign is echoed, 0 for none seen
//	u64  the last of that process's signs that was seen before the groups were looked at
//	uvarint count, then so many: u8 length and identity: nodes that the sender holds for gone
//	uvarint count, then so many: u8 length and name: groups of which nothing is claimed any more
//	uvarint count, then so many: u8 kind, u64 term, uvarint instance, u8 length and name: claims
//
// Withdrawals and claims are what changed since the sender's last sign of the
// same session; a new session begins with none. Bytes behind what is known are
// ignored. docs/peer-link.md says what may be concluded from a sign, and why.
const (
	signLayout uint8 = 1

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
	// instance tells a group that was closed and opened again from one that stayed open.
	instance uint64
}

// said is what a session's other side was told and still believes.
type said map[*GroupTransport]claim

type namedClaim struct {
	group string
	claim
}

type sign struct {
	echoBoot, echoSeq uint64
	suspects          []string
	withdrawn         []string
	claims            []namedClaim
}

func (s *sign) encode() []byte {
	b := make([]byte, 0, 32+48*(len(s.withdrawn)+len(s.claims)))
	b = append(b, signLayout)
	b = binary.BigEndian.AppendUint64(b, s.echoBoot)
	b = binary.BigEndian.AppendUint64(b, s.echoSeq)
	b = binary.AppendUvarint(b, uint64(len(s.suspects)))
	for _, id := range s.suspects {
		b = appendString8(b, id)
	}
	b = binary.AppendUvarint(b, uint64(len(s.withdrawn)))
	for _, name := range s.withdrawn {
		b = appendString8(b, name)
	}
	b = binary.AppendUvarint(b, uint64(len(s.claims)))
	for _, c := range s.claims {
		b = append(b, c.kind)
		b = binary.BigEndian.AppendUint64(b, c.term)
		b = binary.AppendUvarint(b, c.instance)
		b = appendString8(b, c.group)
	}
	return b
}

var errSign = errors.New("malformed sign of life")

func decodeSign(b []byte) (sign, error) {
	var s sign
	d := decoder{b: b}
	layout := d.u8()
	s.echoBoot, s.echoSeq = d.u64(), d.u64()
	if d.bad || layout != signLayout {
		return s, errSign
	}
	// least is what one element takes: nothing is allocated on the word of a count alone.
	count := func(least, most uint64) int {
		n := d.uvarint()
		if d.bad || n > most || n*least > uint64(len(d.b)) {
			d.bad = true
			return 0
		}
		return int(n)
	}
	name := func() string { return string(d.take(int(d.u8()))) }
	if n := count(1, maxSuspects); n > 0 {
		s.suspects = make([]string, n)
		for i := range s.suspects {
			s.suspects[i] = name()
		}
	}
	if n := count(1, maxClaims); n > 0 {
		s.withdrawn = make([]string, n)
		for i := range s.withdrawn {
			s.withdrawn[i] = name()
		}
	}
	if n := count(11, maxClaims); n > 0 {
		s.claims = make([]namedClaim, n)
		for i := range s.claims {
			c := &s.claims[i]
			c.kind, c.term, c.instance = d.u8(), d.u64(), d.uvarint()
			c.group = name()
		}
	}
	if d.bad {
		return s, errSign
	}
	return s, nil
}

// heardSigns is what the signs of one other node have said.
type heardSigns struct {
	mu sync.Mutex // guards what follows; nothing is called under it

	sent uint64 // signs that were made for that node

	from     *inbound // the session that the rest came over; nil: none, and the rest is empty
	at       int64    // link clock of the last sign
	seq      uint64   // of the last sign
	echo     uint64   // the highest of our signs that it says to have seen
	claims   map[string]claim
	suspects []string
	waiting  []*confirmation // by what they need, ascending
}

// confirmation is one heartbeat that waits for a sign.
type confirmation struct {
	need  uint64 // the first of our signs that was made after the heartbeat began
	group string
	term  uint64
	got   chan bool // capacity 1
}

// reset forgets everything: signs of from are what counts now. Whoever waits is told no.
func (h *heardSigns) reset(from *inbound) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.resetLocked(from)
}

func (h *heardSigns) resetLocked(from *inbound) {
	h.refuseLocked()
	h.from, h.at, h.seq, h.echo, h.claims, h.suspects = from, 0, 0, 0, nil, nil
}

// refuse tells whoever waits no: the session that our signs went over is over.
func (h *heardSigns) refuse() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refuseLocked()
}

func (h *heardSigns) refuseLocked() {
	for _, w := range h.waiting {
		w.got <- false
	}
	h.waiting = nil
}

// ended forgets what came over a session that is over.
func (h *heardSigns) ended(in *inbound) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.from == in {
		h.resetLocked(nil)
	}
}

// sign takes one sign of life, on the reading goroutine.
func (in *inbound) sign(h frameHeader, body []byte) error {
	s, err := decodeSign(body)
	if err != nil {
		return err
	}
	if in.single || in.version < versionSigns {
		return fmt.Errorf("%w: a sign of life where none was agreed on", errProto)
	}
	l := in.link
	l.stats.signsIn.Add(1)
	news, err := in.peer.signs.take(in, h.id, &s, l)
	if news {
		l.pulseSoon()
	}
	return err
}

// take says whether the suspicions of that node have changed.
func (h *heardSigns) take(in *inbound, seq uint64, s *sign, l *Link) (news bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.from != in {
		return false, nil // a newer session has begun
	}
	if seq <= h.seq {
		return false, fmt.Errorf("%w: sign %d after %d", errProto, seq, h.seq)
	}
	if h.claims == nil {
		h.claims = make(map[string]claim)
	}
	for _, group := range s.withdrawn {
		delete(h.claims, group)
	}
	for _, c := range s.claims {
		h.claims[c.group] = c.claim
	}
	if len(h.claims) > maxClaims {
		return false, fmt.Errorf("%w: claims of %d groups", errProto, len(h.claims))
	}
	h.seq, h.at = seq, l.now()
	// What an earlier process here had sent proves nothing to this one.
	if s.echoBoot == l.boot && s.echoSeq <= h.sent {
		h.echo = max(h.echo, s.echoSeq)
	}
	news = len(h.suspects) != len(s.suspects)
	for i := 0; i < len(s.suspects) && !news; i++ {
		news = h.suspects[i] != s.suspects[i]
	}
	h.suspects = s.suspects
	n := 0
	for ; n < len(h.waiting) && h.waiting[n].need <= h.echo; n++ {
		w := h.waiting[n]
		c := h.claims[w.group]
		w.got <- c.kind == claimFollows && c.term == w.term
		h.waiting[n] = nil
	}
	h.waiting = h.waiting[n:]
	return news, nil
}

// fresh says whether the last sign is at most as old as a sign may be late.
func (h *heardSigns) freshLocked(l *Link) bool {
	return h.from != nil && h.at != 0 && l.now()-h.at <= int64(signPatience*l.cfg.SignInterval)
}

// claimed gives what that node claims of a group, the zero claim if its signs
// are late. boot is the process that claims it.
func (p *peerState) claimed(group string) (c claim, boot uint64) {
	h := &p.signs
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.freshLocked(p.link) {
		return claim{}, 0
	}
	return h.claims[group], h.from.boot
}

// expect enters a heartbeat that waits for a sign; nil if it is already known that it would wait in vain.
func (p *peerState) expect(group string, term uint64) *confirmation {
	h := &p.signs
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.claims[group]; !h.freshLocked(p.link) || c.kind != claimFollows || c.term != term || len(h.waiting) >= maxClaims {
		return nil
	}
	w := &confirmation{need: h.sent + 1, group: group, term: term, got: make(chan bool, 1)}
	h.waiting = append(h.waiting, w)
	return w
}

package main

import (
	"encoding/binary"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/trimaran-io/trimaran/gateway/shim"
)

// A client that logs in does so at one gateway. The shim asks that gateway for a ticket, again and
// again, and shows it to the next one when the first is gone; so the client notices as little as
// one that has not logged in. What the client says while it logs in is passed on unread, but for
// how many messages the mechanism takes.

const (
	// apiToken is Trimaran's own API that issues tickets. Its answer is an error code (int16) and,
	// with its length (int32), JSON.
	apiToken = 21589
	// ticketRenewal and ticketLasts are below what a gateway gives, which is a minute.
	ticketRenewal = 20 * time.Second
	ticketLasts   = 50 * time.Second
	// ticketCorrelation is of the shim's own requests. Answers are told apart by their order.
	ticketCorrelation = 0x7472
)

// messages is how many the client has to send; other mechanisms are not known, and a client that
// uses them stays bound to its gateway.
var messages = map[string]int{"PLAIN": 1, "OAUTHBEARER": 1, "SCRAM-SHA-256": 2, "SCRAM-SHA-512": 2}

// handshakeMechanism reads the mechanism out of a SaslHandshake.
func handshakeMechanism(frame []byte) string {
	p := &head{b: frame[4+minRequest:]}
	p.nullableString() // client id
	n := p.int16()
	if p.bad || n < 0 || int(n) > len(p.b) {
		return ""
	}
	return string(p.b[:n])
}

// authenticated reads the answer to a SaslAuthenticate, or to a message without a header: whether
// the gateway took the message, and whether it said nothing to it.
func authenticated(r *request, answer []byte) (taken, nothing bool) {
	if r.raw {
		return true, len(answer) == 4 // a failure is the end of the connection
	}
	p := &head{b: answer[8:]}
	if r.version >= 2 {
		p.uvarint() // tagged fields
		if p.int16() != 0 || p.bad {
			return false, false
		}
		if n := p.uvarint(); n > 0 { // error message
			p.skip(n - 1)
		}
		return !p.bad, p.uvarint() <= 1
	}
	if p.int16() != 0 || p.bad {
		return false, false
	}
	p.nullableString()
	return !p.bad && len(p.b) >= 4, len(p.b) >= 4 && binary.BigEndian.Uint32(p.b) == 0
}

// heard follows a login by the gateway's answers.
func (s *session) heard(r *request, answer []byte) {
	switch r.key {
	case apiSaslHandshake:
		s.mechanism, s.steps = r.mechanism, messages[r.mechanism]
	case apiSaslAuthenticate:
		taken, nothing := authenticated(r, answer)
		s.client.denied = !taken
		if s.steps--; !taken || s.steps != 0 || s.mechanism == "OAUTHBEARER" && !nothing {
			return
		}
		s.askTicket()
	}
}

// askTicket has the gateway asked for a ticket, before what it has not been asked yet.
func (s *session) askTicket() {
	s.renew = nil
	if s.ending || slices.ContainsFunc(s.queue, func(r *request) bool { return r.own }) {
		return
	}
	body := `{"kind":"ticket"}`
	frame := binary.BigEndian.AppendUint32(nil, uint32(10+len(body)))
	frame = binary.BigEndian.AppendUint16(frame, apiToken)
	frame = binary.BigEndian.AppendUint16(frame, 0)
	frame = binary.BigEndian.AppendUint32(frame, ticketCorrelation)
	frame = binary.BigEndian.AppendUint16(frame, 0xffff) // no client id
	own := &request{frame: append(frame, body...), key: apiToken, correlation: ticketCorrelation, answered: true, own: true}
	s.queue = slices.Insert(s.queue, s.handed, own)
	s.bytes += len(own.frame) // too small to count in memory
}

// takeTicket reads the answer to that. Without a ticket the client is bound to its gateway.
func (s *session) takeTicket(answer []byte) {
	var said struct {
		Token string `json:"token"`
		Error string `json:"error"`
	}
	const text = 8 + 2 + 4
	if len(answer) < text || json.Unmarshal(answer[text:], &said) != nil || said.Token == "" {
		s.proxy.logger.Debug("no ticket: the client is bound to its gateway", "client", s.client.RemoteAddr().String(), "error", said.Error)
		return
	}
	s.ticket, s.ticketEnds = said.Token, time.Now().Add(ticketLasts)
	s.renew = time.After(ticketRenewal)
}

// tied reports whether the client's login would be lost with its gateway.
func (s *session) tied() bool {
	return s.bound && (s.ticket == "" || time.Now().After(s.ticketEnds))
}

// header is what the next gateway is told of the client.
func (s *session) header() http.Header {
	h := http.Header{}
	way := shim.ClientClear
	if s.client.secure {
		way = shim.ClientTLS
	}
	if from := plainAddress(s.client.RemoteAddr()); from != "" {
		h.Set(shim.ClientHeader, from+" "+way)
	}
	if s.bound && s.ticket != "" {
		h.Set(shim.TicketHeader, s.ticket)
	}
	return h
}

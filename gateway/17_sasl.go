package gateway

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/gateway/session"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/security"
)

// SaslHandshake, versions 0 and 1, and SaslAuthenticate, versions 0 to 2.
//
// Kept: after version 0 of the handshake the mechanism's messages come and go as they are, with
// their size and without Kafka's headers; nothing but the end of the connection tells of a failure.
// A failure is SASL_AUTHENTICATION_FAILED with one sentence for all reasons, 100 ms after the
// message came (KIP-306), and then the connection ends: at once if the client closes it, else
// within 200 ms. A client may log in again, as the same principal by the same mechanism, and has to
// before its session ends (KIP-368).
//
// Where there are no mechanisms both are ILLEGAL_SASL_STATE, as at a listener of Kafka's that has
// no SASL, and the connection stays. A client that is configured for SASL says so at once; it would
// wait for its own timeout where the connection is closed without an answer.

const noSASL = "this listener has no SASL: connect with security.protocol=PLAINTEXT or SSL"

func handleSASLHandshake(r *request) {
	req := r.body.(*kmsg.SASLHandshakeRequest)
	resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
	if !r.conn.server.login.Takes() {
		resp.ErrorCode, resp.SupportedMechanisms = r.note(kerr.IllegalSaslState.Code), []string{}
		r.conn.server.refusals.Log("a client asks for SASL, which this listener does not have", kerr.IllegalSaslState, "peer", r.conn.client.Peer)
		r.answer(resp)
		return
	}
	a := r.conn.login.Handshake(req.Version, req.Mechanism)
	resp.ErrorCode, resp.SupportedMechanisms = r.note(a.Code), a.Mechanisms
	r.answer(resp)
	r.endsWith(a)
	r.conn.bounds()
}

func handleSASLAuthenticate(r *request) {
	req := r.body.(*kmsg.SASLAuthenticateRequest)
	resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
	if !r.conn.server.login.Takes() {
		resp.ErrorCode, resp.ErrorMessage = r.note(kerr.IllegalSaslState.Code), kmsg.StringPtr(noSASL)
		r.answer(resp)
		return
	}
	a := r.conn.login.Authenticate(r.reply.Open(), req.SASLAuthBytes)
	if r.endsWith(a); a.Silent {
		r.hangUp(r.ends)
		return
	}
	resp.ErrorCode, resp.SASLAuthBytes, resp.SessionLifetimeMillis = r.note(a.Code), a.Bytes, a.Lifetime.Milliseconds()
	if a.Code != 0 {
		resp.ErrorMessage, resp.SASLAuthBytes = kmsg.StringPtr(login.Failed), []byte{}
	}
	r.answer(resp)
	r.conn.bounds()
}

// serveToken answers a message of the mechanism's that has no header. An error ends the connection.
func (r *request) serveToken(message []byte) (err error) {
	r.began, r.name = time.Now(), "SASLAuthenticate"
	defer func() {
		if v := recover(); v != nil {
			err = r.reply.Panicked(v)
			r.hangUp(err)
		}
	}()
	a := r.conn.login.Authenticate(r.reply.Open(), message)
	r.note(a.Code)
	if r.endsWith(a); r.ends != nil {
		r.hangUp(r.ends)
		return r.ends
	}
	r.conn.bounds()
	r.answerFrame(append(make([]byte, 4, 4+len(a.Bytes)), a.Bytes...))
	return nil
}

func (r *request) endsWith(a login.Answer) {
	if a.End != nil {
		r.ends = fmt.Errorf("%w: %w", session.ErrLogin, a.End)
	}
}

// refuseStranger ends the connection at a request of a client that has not logged in, or no longer.
// The APIs that are Trimaran's own say why; nobody knows what another's answer looks like.
func (r *request) refuseStranger(why error) error {
	why = fmt.Errorf("%w: %w", session.ErrLogin, why)
	if r.header.Key < StatusKey {
		r.hangUp(why)
		return why
	}
	frame := kafkaproto.AppendResponseHeader(make([]byte, 4, 16), r.header)
	frame = binary.BigEndian.AppendUint16(frame, uint16(r.note(kerr.IllegalSaslState.Code)))
	r.answerFrame(binary.BigEndian.AppendUint32(frame, 0))
	return why
}

// endsWithin is how long a session whose user or token is no more may take for its last answers.
const endsWithin = 500 * time.Millisecond

// begin has the connection know who its client is, as far as that is known.
func (c *connection) begin(framer session.Framer, n *session.Session) {
	client := c.client
	facts := client.Facts
	if facts.Proven == nil {
		facts.Proven = func() {}
	}
	facts.End = func() {
		n.Drain()
		// A client that takes no answers would have those that are left later than anybody thinks.
		if facts.Cut != nil {
			time.AfterFunc(endsWithin, facts.Cut)
		}
	}
	c.login = c.server.login.Conn(facts)
	if bounded, ok := framer.(interface {
		Bound(most int, until time.Time, raw bool)
	}); ok && !c.login.LoggedIn() {
		c.bound = bounded.Bound
		if !client.Told { // by which a shim watches this node
			c.until = time.Now().Add(login.Within)
		}
	} else if ok {
		c.bound = bounded.Bound
	}
	c.bounds()
}

// bounds sets what may be read next. The reader calls it.
func (c *connection) bounds() {
	switch {
	case c.bound == nil:
	case !c.login.LoggedIn():
		c.bound(login.MaxFrame, c.until, c.login.Raw())
	case c.login.Raw(): // one that need not log in, or does so again
		c.bound(login.MaxFrame, time.Time{}, true)
	default:
		c.bound(0, time.Time{}, false)
	}
}

// identity is who asks over this connection, at this moment.
func (c *connection) identity() security.Identity {
	if identify := c.server.cfg.identify; identify != nil {
		id := identify(c.client)
		id.Host = c.login.Identity().Host
		return id
	}
	return c.login.Identity()
}

// leaving is a session whose login ends with it.
type leaving struct {
	*session.Session
	login *login.Conn
}

// Run implements listen.Session.
func (l *leaving) Run() {
	defer l.login.Leave()
	l.Session.Run()
}

package gateway

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// SaslHandshake, versions 0 and 1, and SaslAuthenticate, versions 0 to 2.
//
// Kept: as at a listener of Kafka's that has no SASL, both are ILLEGAL_SASL_STATE, and the
// connection stays. A client that is configured for SASL says so at once; it would wait for
// its own timeout where the connection is closed without an answer.

const noSASL = "this listener has no SASL: connect with security.protocol=PLAINTEXT or SSL"

func handleSASLHandshake(r *request) {
	resp := r.body.(*kmsg.SASLHandshakeRequest).ResponseKind().(*kmsg.SASLHandshakeResponse)
	resp.ErrorCode, resp.SupportedMechanisms = r.note(kerr.IllegalSaslState.Code), []string{}
	r.conn.server.refusals.Log("a client asks for SASL, which this listener does not have", kerr.IllegalSaslState, "peer", r.conn.client.Peer)
	r.answer(resp)
}

func handleSASLAuthenticate(r *request) {
	resp := r.body.(*kmsg.SASLAuthenticateRequest).ResponseKind().(*kmsg.SASLAuthenticateResponse)
	resp.ErrorCode, resp.ErrorMessage = r.note(kerr.IllegalSaslState.Code), kmsg.StringPtr(noSASL)
	r.answer(resp)
}

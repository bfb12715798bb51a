// Package shim lets Kafka clients reach a gateway over WebSocket: a net.Conn
// that carries each Kafka message in one binary WebSocket message, and dialers
// for clients that take one.
//
// You are here: at the client's end of the WebSocket listener. The package knows the framing and
// nothing else of Kafka's protocol, and imports of this module only how frames are written. It
// tries one gateway once; who tries again, and elsewhere, is whoever calls it. The rule is that of
// kafka-websocket-shim, in both directions: a plain handshake on path /, each Kafka message with
// its 4-byte size in exactly one binary message.
//
//	franz-go:  kgo.Dialer((&shim.Dialer{}).DialContext)
//	sarama:    config.Net.Proxy.Enable = true; config.Net.Proxy.Dialer = &shim.Dialer{}
package shim

// AdvertiseHeader is the request header in which a client of the gateway may
// say the host:port that Metadata answers on this connection should name. The
// proxy puts its own address there, so that its clients come back to it.
const AdvertiseHeader = "Trimaran-Advertise"

// GoodbyeReason is the reason that a gateway may give with close code 1001 when
// it promises that it has answered every request that it took from this
// connection. What is still unanswered then was never begun, and may be sent to
// another gateway even if it changes something. Without it, code 1001 promises
// nothing.
const GoodbyeReason = "goodbye: what was read is answered"

// ClientHeader is the request header in which a proxy says where its client comes from: address and
// port, a blank, and "tls" or "clear". A gateway believes the address only of proxies that it was
// told to trust; that what the client sends can be read on the way it believes of every one.
const ClientHeader = "Trimaran-Client"

// What ClientHeader says of the way between client and proxy.
const (
	ClientTLS   = "tls"
	ClientClear = "clear"
)

// TicketHeader is the request header in which a proxy shows a ticket: that its client has logged in
// at another gateway of the cluster. A gateway that does not take it answers with status 401.
const TicketHeader = "Trimaran-Ticket"

// ServingHeader is the request header by which a client of the gateway asks to be told whether the
// gateway serves, that is, belongs to the majority of the cluster. The gateway's answer has the
// same header with Serving or NotServing, and so has the data of every ping from then on, one of
// which follows each change at once. Whoever asks is expected to go elsewhere by itself; from other
// clients a gateway that is cut off parts. Gateways that do not know the header leave it out.
const ServingHeader = "Trimaran-Serving"

// What a gateway says of itself, see ServingHeader.
const (
	Serving    = "serving"
	NotServing = "not serving"
)

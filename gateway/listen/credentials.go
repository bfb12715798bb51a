package listen

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/gorilla/websocket"

	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/gateway/shim"
)

// A browser's page cannot set headers, and offers its token as a subprotocol, as Kubernetes has it:
// first the name of what is spoken, which is chosen, then the token in base64 without padding.
const (
	tokenProtocol = "trimaran"
	tokenPrefix   = "trimaran.bearer."
)

var (
	errTwoCredentials = errors.New("more than one credential")
	errCredential     = errors.New("a credential that cannot be read")
	errBasicOrigin    = errors.New("user and password from a web page: browsers send those that they remember")
)

// judge says who a WebSocket's handshake comes from. Without a credential it may log in by SASL
// inside. ok is false when the handshake has been refused. protocols are those to choose from.
func (s *Server) judge(w http.ResponseWriter, r *http.Request, c *webConn) (facts login.Facts, protocols []string, ok bool) {
	refuse := func(status int, why error) (login.Facts, []string, bool) {
		s.cfg.Metrics.Refused("credentials")
		s.cfg.Refusals.Log("websocket refused", why, "peer", c.RemoteAddr())
		if status == http.StatusUnauthorized {
			// Not Basic: a browser would ask its user, and send the password to every page's
			// requests from then on.
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		plain(w, status, "The credentials were not taken.\n")
		return facts, nil, false
	}
	facts, err := s.facts(c.conn, c.state)
	if err != nil {
		return refuse(http.StatusForbidden, err)
	}
	if err := s.forwarded(r, c, &facts); err != nil {
		return refuse(http.StatusBadRequest, err)
	}
	if !s.cfg.Login.Takes() {
		return facts, subprotocols, true
	}
	asked := credential{}
	if asked, err = readCredential(r); err != nil {
		return refuse(http.StatusBadRequest, err)
	}
	var who *login.Who
	switch asked.kind {
	case "":
		return facts, subprotocols, true
	case "basic":
		if len(r.Header.Values("Origin")) > 0 {
			return refuse(http.StatusForbidden, errBasicOrigin)
		}
		who, err = s.cfg.Login.Basic(r.Context(), facts, asked.user, asked.secret)
	case "bearer":
		who, err = s.cfg.Login.Bearer(r.Context(), facts, asked.secret)
	case "ticket":
		who, err = s.cfg.Login.FromTicket(r.Context(), facts, asked.secret)
	}
	switch {
	case errors.Is(err, login.ErrNotKnown):
		return refuse(http.StatusServiceUnavailable, err)
	case err != nil:
		return refuse(http.StatusUnauthorized, err)
	}
	facts.Who = who
	if asked.protocol {
		return facts, []string{tokenProtocol}, true
	}
	return facts, subprotocols, true
}

type credential struct {
	kind         string // "basic", "bearer", "ticket"; "": none
	user, secret string
	protocol     bool // it came as a subprotocol
}

// readCredential finds the one credential of a handshake.
func readCredential(r *http.Request) (credential, error) {
	var found []credential
	for _, text := range r.Header.Values("Authorization") {
		scheme, secret, _ := strings.Cut(text, " ")
		switch {
		case strings.EqualFold(scheme, "Bearer"):
			found = append(found, credential{kind: "bearer", secret: strings.TrimSpace(secret)})
		case strings.EqualFold(scheme, "Basic"):
			user, password, ok := r.BasicAuth()
			if !ok {
				return credential{}, errCredential
			}
			found = append(found, credential{kind: "basic", user: user, secret: password})
		default:
			return credential{}, errCredential
		}
	}
	for _, text := range r.Header.Values(shim.TicketHeader) {
		found = append(found, credential{kind: "ticket", secret: text})
	}
	offered := websocket.Subprotocols(r)
	for _, name := range offered {
		encoded, is := strings.CutPrefix(name, tokenPrefix)
		if !is {
			continue
		}
		token, err := base64.RawURLEncoding.DecodeString(encoded)
		if err != nil || !slices.Contains(offered, tokenProtocol) {
			return credential{}, errCredential
		}
		found = append(found, credential{kind: "bearer", secret: string(token), protocol: true})
	}
	switch len(found) {
	case 0:
		return credential{}, nil
	case 1:
		return found[0], nil
	}
	return credential{}, errTwoCredentials
}

// forwarded takes what a shim says of its client (shim.ClientHeader).
func (s *Server) forwarded(r *http.Request, c *webConn, facts *login.Facts) error {
	values := r.Header.Values(shim.ClientHeader)
	if len(values) == 0 {
		return nil
	}
	address, way, _ := strings.Cut(values[0], " ")
	client, err := netip.ParseAddrPort(address)
	if err != nil || len(values) > 1 || way != shim.ClientTLS && way != shim.ClientClear {
		return fmt.Errorf("%s: %s", shim.ClientHeader, Shown(values[0]))
	}
	ip := client.Addr().Unmap().WithZone("")
	proxy, _ := ipOf(c.RemoteAddr())
	if proxy.IsValid() && s.cfg.Strangers.trusts(proxy) {
		facts.Host = ip.String() // whether the way from the shim to here is clear is seen here
	}
	if way == shim.ClientClear && !ip.IsLoopback() {
		facts.Clear = true
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/cluster"
	"github.com/trimaran-io/trimaran/gateway"
	"github.com/trimaran-io/trimaran/gateway/audit"
	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/certs"
	"github.com/trimaran-io/trimaran/security/jwt"
)

// loginOptions is how clients say who they are.
type loginOptions struct {
	certificates *certs.Watched // nil: no TLS
	certRequired bool
	mechanisms   []string
	optional     bool
	maxSession   time.Duration
	oauth        *jwt.Verifier // nil: no identity provider
	keysFrom     string        // file or URL of its keys
	strangers    listen.Strangers
	auditLog     string      // file; "": the node's log
	firstUsers   []firstUser // of a cluster that has had none
}

// The defaults of what strangers can take.
const maxUnauthenticated = 1000

func addServeLoginFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("tls-client-ca", "", "PEM `file` with the CA that signs clients' certificates")
	f.Bool("tls-client-optional", false, "with --tls-client-ca: clients may show a certificate and need not")
	f.String("tls-principal", security.ByDN, "how a certificate names its user: dn, cn or san-uri")
	f.StringSlice("sasl-mechanisms", nil, "clients have to log in by one of `mechanisms`: SCRAM-SHA-512, SCRAM-SHA-256, PLAIN, OAUTHBEARER")
	f.Bool("sasl-optional", false, "with --sasl-mechanisms: who does not log in is User:ANONYMOUS and is not turned away")
	f.Duration("max-reauth", 0, "clients have to log in again after so long (KIP-368); 0: when their token ends")
	f.String("oauth-jwks", "", "`file` or https URL with the keys (JWKS) of an identity provider, for OAUTHBEARER")
	f.String("oauth-issuer", "", "`iss` of its tokens")
	f.String("oauth-audience", "", "`aud` of tokens that are for this cluster")
	f.String("oauth-principal-claim", "sub", "`claim` that names the user")
	f.Duration("oauth-clock-skew", 30*time.Second, "by how much clocks may differ")
	f.Duration("oauth-max-lifetime", 24*time.Hour, "tokens that last longer are refused")
	f.StringSlice("trusted-proxy", nil, "`addresses` or networks of shims that are believed where their clients come from")
	f.Int("max-unauthenticated", maxUnauthenticated, "connections that have to log in and have not; for one more the oldest is closed")
	f.Int("max-connections-per-address", 0, "connections of one address but trusted proxies'; 0: no bound")
	f.String("bootstrap-user-file", "", "`file` with the first users of a cluster that has had none, NAME:PASSWORD on each line")
	f.String("audit-log", "", "`file` that denials, and what is done with tokens and backups, are written to, as lines of JSON (default: the node's log)")
}

// serveLogin reads what addServeLoginFlags adds.
func serveLogin(cmd *cobra.Command) (o loginOptions, err error) {
	f := cmd.Flags()
	text := func(name string) string { s, _ := f.GetString(name); return s }
	files := certs.Files{Cert: text("tls-cert"), Key: text("tls-key"), CA: text("tls-client-ca")}
	if files != (certs.Files{}) {
		if files.Cert == "" || files.Key == "" {
			return o, usagef("--tls-cert and --tls-key go together, and --tls-client-ca with them")
		}
		if o.certificates, err = certs.WatchParts(files); err != nil {
			return o, fmt.Errorf("--tls-cert, --tls-key, --tls-client-ca: %w", err)
		}
	}
	optional, _ := f.GetBool("tls-client-optional")
	o.certRequired = files.CA != "" && !optional
	o.strangers.CertificateName = text("tls-principal")
	if !slices.Contains([]string{security.ByDN, security.ByCN, security.BySANURI}, o.strangers.CertificateName) {
		return o, usagef("--tls-principal %q: want dn, cn or san-uri", o.strangers.CertificateName)
	}
	o.mechanisms, _ = f.GetStringSlice("sasl-mechanisms")
	o.optional, _ = f.GetBool("sasl-optional")
	o.maxSession, _ = f.GetDuration("max-reauth")
	for _, s := range o.mechanisms {
		if !slices.Contains(login.Mechanisms, s) {
			return o, usagef("--sasl-mechanisms %q: want some of %v", s, login.Mechanisms)
		}
	}
	if o.maxSession != 0 && o.maxSession < time.Minute {
		return o, usagef("--max-reauth %v: want at least a minute", o.maxSession)
	}
	proxies, _ := f.GetStringSlice("trusted-proxy")
	for _, s := range proxies {
		network, err := parseNetwork(s)
		if err != nil {
			return o, usagef("--trusted-proxy %q: want an address or a network", s)
		}
		o.strangers.Proxies = append(o.strangers.Proxies, network)
	}
	o.strangers.Most, _ = f.GetInt("max-unauthenticated")
	o.strangers.PerAddress, _ = f.GetInt("max-connections-per-address")
	if o.strangers.Most < 1 || o.strangers.PerAddress < 0 {
		return o, usagef("--max-unauthenticated and --max-connections-per-address cannot be negative, and the first not 0")
	}
	o.auditLog = text("audit-log")
	if path := text("bootstrap-user-file"); path != "" {
		if o.firstUsers, err = readFirstUsers(path); err != nil {
			return o, fmt.Errorf("--bootstrap-user-file: %w", err)
		}
	}
	return o, o.readOAuth(cmd)
}

func (o *loginOptions) readOAuth(cmd *cobra.Command) error {
	f := cmd.Flags()
	text := func(name string) string { s, _ := f.GetString(name); return s }
	o.keysFrom = text("oauth-jwks")
	v := &jwt.Verifier{Issuer: text("oauth-issuer"), Audience: text("oauth-audience"), Claim: text("oauth-principal-claim")}
	v.Skew, _ = f.GetDuration("oauth-clock-skew")
	v.MaxLifetime, _ = f.GetDuration("oauth-max-lifetime")
	switch {
	case o.keysFrom == "" && v.Issuer == "" && v.Audience == "":
		return nil
	case o.keysFrom == "" || v.Issuer == "" || v.Audience == "":
		return usagef("--oauth-jwks, --oauth-issuer and --oauth-audience go together")
	case v.Skew < 0 || v.MaxLifetime <= 0 || v.Claim == "":
		return usagef("--oauth-clock-skew, --oauth-max-lifetime and --oauth-principal-claim: want values")
	case !slices.Contains(o.mechanisms, login.OAuthBearer):
		return usagef("--oauth-jwks is for tokens: --sasl-mechanisms must have OAUTHBEARER")
	}
	if _, err := login.NewKeySet(o.keysFrom, nil); err != nil {
		return usagef("--oauth-jwks: %v", err)
	}
	o.oauth = v
	return nil
}

// parseNetwork reads an address as the network that has nothing else.
func parseNetwork(s string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen()), nil
	}
	network, err := netip.ParsePrefix(s)
	return network.Masked(), err
}

// required says whether clients have to show who they are.
func (o loginOptions) required() bool { return len(o.mechanisms) > 0 && !o.optional || o.certRequired }

// login sets how clients log in to the gateway of a cluster, which has the users and the keys where
// its catalog keeps them. The closer is of the audit log.
func (o loginOptions) login(config *gateway.Config, cluster *cluster.Node, log *slog.Logger) (close func(), err error) {
	close = func() {}
	config.Audit = audit.New(log)
	if o.auditLog != "" {
		file, err := os.OpenFile(o.auditLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return close, fmt.Errorf("--audit-log: %w", err)
		}
		close = func() { file.Close() }
		config.Audit = audit.New(slog.New(slog.NewJSONHandler(file, nil)))
	}
	config.Strangers = o.strangers
	l := &config.Login
	l.Mechanisms, l.MaxSession = o.mechanisms, o.maxSession
	l.Required = o.required()
	kept := catalogKeys{cluster: cluster, revoked: new(atomic.Pointer[revocations])}
	l.Credentials, l.Tokens = kept, kept
	if o.oauth != nil {
		verifier := *o.oauth
		l.OAuth = &verifier
		if l.Keys, err = login.NewKeySet(o.keysFrom, log); err != nil {
			return close, errors.Join(err, errors.New("--oauth-jwks"))
		}
	}
	return close, nil
}

// begin does what a node does about logins beside serving, until ctx ends: certificates follow
// their files, and the cluster gets a key for tokens and its first users.
func (o loginOptions) begin(ctx context.Context, c *cluster.Node, log *slog.Logger) {
	if o.certificates != nil {
		go o.certificates.Follow(ctx, log)
	}
	if len(o.mechanisms) > 0 {
		go catalogKeys{cluster: c}.makeFirstKey(ctx, log)
	}
	if len(o.firstUsers) > 0 {
		go createFirstUsers(ctx, c, o.firstUsers, log)
	}
}

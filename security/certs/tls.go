package certs

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"
)

// Every is how often files are looked at. They are read whole and compared by what is in them:
// whoever puts new ones there may rename, link or overwrite.
const Every = 10 * time.Second

// Follow reads the files again every now and then until ctx ends. What cannot be used is said in
// the log, once, and the old stays.
func (w *Watched) Follow(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		switch changed, err := w.Reload(); {
		case err != nil:
			log.Error("the certificate's files cannot be used; the old ones stay", "error", err)
		case changed:
			log.Info("certificates were read anew")
		}
	}
}

// Server is for who listens for clients. With CAs clients have to show a certificate that one of
// them signed, or may if they need not (optional). What the files say later holds for later
// connections.
func (w *Watched) Server(optional bool) *tls.Config {
	of := func(b *Bundle) *tls.Config {
		config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{b.Pair}}
		if b.CAs != nil {
			config.ClientCAs, config.ClientAuth = b.CAs, tls.RequireAndVerifyClientCert
			if optional {
				config.ClientAuth = tls.VerifyClientCertIfGiven
			}
			// A session that goes on would go by the CA as it was.
			config.SessionTicketsDisabled = true
		}
		return config
	}
	config := of(w.Now())
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return of(w.Now()), nil }
	return config
}

// Client is for one connection of who dials: it shows the certificate, if there is one, and trusts
// the CAs, or those of the system where no file has any, as the files are now.
func (w *Watched) Client(serverName string) *tls.Config {
	b := w.Now()
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName, RootCAs: b.CAs}
	if b.Leaf != nil {
		// Also where the server names other CAs, as it does for who has to be refused in words.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &b.Pair, nil }
	}
	return config
}

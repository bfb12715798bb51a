// Package certificates has TLS settings that follow their files, so that certificates are renewed
// without a restart.
//
// You are here: below the commands that listen or dial. Files are read whole every ten seconds and
// compared by what is in them: whoever puts new ones there may rename, link or overwrite. What
// cannot be used is said in the log, and the old stays.
package certificates

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// Every is how often files are looked at.
const Every = 10 * time.Second

// Files are the names of PEM files. Cert and Key go together; without CA the system's are trusted.
type Files struct {
	Cert, Key, CA string
}

// Source is what the files say now.
type Source struct {
	files Files
	now   atomic.Pointer[content]
}

type content struct {
	sum         [sha256.Size]byte
	certificate *tls.Certificate // nil: none
	pool        *x509.CertPool   // nil: none
}

// Load reads the files for the first time.
func Load(files Files) (*Source, error) {
	if (files.Cert == "") != (files.Key == "") {
		return nil, errors.New("a certificate and its key go together")
	}
	s := &Source{files: files}
	c, err := s.read()
	if err != nil {
		return nil, err
	}
	s.now.Store(c)
	return s, nil
}

func (s *Source) read() (*content, error) {
	texts := make([][]byte, 3)
	for i, name := range []string{s.files.Cert, s.files.Key, s.files.CA} {
		if name == "" {
			continue
		}
		var err error
		if texts[i], err = os.ReadFile(name); err != nil {
			return nil, err
		}
	}
	c := &content{sum: sha256.Sum256(bytes.Join(texts, []byte{0}))}
	if s.files.Cert != "" {
		pair, err := tls.X509KeyPair(texts[0], texts[1])
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", s.files.Cert, s.files.Key, err)
		}
		c.certificate = &pair
	}
	if s.files.CA != "" {
		c.pool = x509.NewCertPool()
		if !c.pool.AppendCertsFromPEM(texts[2]) {
			return nil, fmt.Errorf("no certificate in %s", s.files.CA)
		}
	}
	return c, nil
}

// Watch follows the files until ctx ends.
func (s *Source) Watch(ctx context.Context, logger *slog.Logger) {
	tick := time.NewTicker(Every)
	defer tick.Stop()
	told := ""
	for {
		select {
		case <-tick.C:
			told = s.look(logger, told)
		case <-ctx.Done():
			return
		}
	}
}

// look takes what is in the files now. told is what the log said last time.
func (s *Source) look(logger *slog.Logger, told string) string {
	c, err := s.read()
	switch {
	case err != nil:
		if err.Error() != told {
			logger.Error("the certificate's files cannot be used; the old ones stay", "error", err)
		}
		return err.Error()
	case c.sum != s.now.Load().sum:
		s.now.Store(c)
		logger.Info("certificates were read anew", "cert", s.files.Cert, "ca", s.files.CA)
	}
	return ""
}

// Server is for a listener. With a CA clients have to show a certificate that it signed, or may if
// they need not (optional).
func (s *Source) Server(optional bool) *tls.Config {
	of := func(c *content) *tls.Config {
		config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*c.certificate}}
		if c.pool != nil {
			config.ClientCAs, config.ClientAuth = c.pool, tls.RequireAndVerifyClientCert
			if optional {
				config.ClientAuth = tls.VerifyClientCertIfGiven
			}
			// A session that goes on would go by the CA as it was.
			config.SessionTicketsDisabled = true
		}
		return config
	}
	config := of(s.now.Load())
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return of(s.now.Load()), nil }
	return config
}

// Client is for whoever dials: it shows the certificate, if there is one. The CA is that of now, so
// it is to be asked for each connection, or to be used where the CA does not change.
func (s *Source) Client(serverName string) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName, RootCAs: s.now.Load().pool}
	if s.files.Cert != "" {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return s.now.Load().certificate, nil
		}
	}
	return config
}

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/trimaran-io/trimaran/gateway/login"
	"github.com/trimaran-io/trimaran/security"
)

// passwordVariable has the password where neither a file nor standard input does.
const passwordVariable = "TRIMARAN_PASSWORD"

// maxSecret bounds a file with a password or a token, in bytes.
const maxSecret = 64 << 10

func addCredentialFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("tls-cert", "", "PEM `file` with the certificate that is shown to the server")
	f.String("tls-key", "", "PEM `file` with its key")
	f.String("user", "", "`name` to log in as; the password comes from --password-file or $"+passwordVariable)
	f.String("password-file", "", "`file` whose first line is the password; -: the first line of standard input")
	f.String("token-file", "", "`file` with a token to log in with (OAUTHBEARER)")
	f.String("sasl-mechanism", "", "SCRAM-SHA-512, SCRAM-SHA-256, PLAIN or OAUTHBEARER (default: SCRAM-SHA-512 for a user, OAUTHBEARER for a token)")
}

// credentialOf is how a command logs in; nil: it does not. A password is no argument: whoever lists
// processes would see it.
func credentialOf(cmd *cobra.Command, b *brokers) (sasl.Mechanism, error) {
	f := cmd.Flags()
	text := func(name string) string { s, _ := f.GetString(name); return s }
	user, mechanism, tokenFile := text("user"), text("sasl-mechanism"), text("token-file")
	switch {
	case user == "" && tokenFile == "":
		if mechanism != "" || text("password-file") != "" {
			return nil, usagef("--sasl-mechanism and --password-file are for --user or --token-file")
		}
		return nil, nil
	case user != "" && tokenFile != "":
		return nil, usagef("--user and --token-file are two ways to log in: give one")
	case tokenFile != "":
		if mechanism != "" && mechanism != login.OAuthBearer {
			return nil, usagef("--token-file is for OAUTHBEARER, not for %s", mechanism)
		}
		token, err := readSecret(tokenFile)
		if err != nil {
			return nil, fmt.Errorf("--token-file: %w", err)
		}
		if err := b.hidden(login.OAuthBearer); err != nil {
			return nil, err
		}
		return oauth.Auth{Token: strings.TrimSpace(token)}.AsMechanism(), nil
	}
	password, err := passwordOf(cmd, text("password-file"))
	if err != nil {
		return nil, err
	}
	switch mechanism {
	case "", security.ScramSHA512:
		return scram.Auth{User: user, Pass: password}.AsSha512Mechanism(), nil
	case security.ScramSHA256:
		return scram.Auth{User: user, Pass: password}.AsSha256Mechanism(), nil
	case login.Plain:
		if err := b.hidden(login.Plain); err != nil {
			return nil, err
		}
		return plain.Auth{User: user, Pass: password}.AsMechanism(), nil
	}
	return nil, usagef("--sasl-mechanism %q: want some of %v", mechanism, login.Mechanisms)
}

func passwordOf(cmd *cobra.Command, file string) (string, error) {
	var password string
	switch file {
	case "":
		var ok bool
		if password, ok = os.LookupEnv(passwordVariable); !ok {
			return "", usagef("--user: the password comes from --password-file or $%s", passwordVariable)
		}
	case "-":
		var err error
		if password, err = readLine(cmd.InOrStdin()); err != nil {
			return "", fmt.Errorf("--password-file -: %w", err)
		}
	default:
		text, err := readSecret(file)
		if err != nil {
			return "", fmt.Errorf("--password-file: %w", err)
		}
		password, _, _ = strings.Cut(text, "\n")
	}
	if password = strings.TrimSuffix(password, "\r"); password == "" {
		return "", errors.New("the password is empty")
	}
	return password, nil
}

func readSecret(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(text) > maxSecret {
		err = fmt.Errorf("%s has more than %d bytes", file, maxSecret)
	}
	return string(text), err
}

// readLine takes a line and nothing behind it: the rest may be records.
func readLine(in io.Reader) (string, error) {
	var line []byte
	one := make([]byte, 1)
	for len(line) < maxSecret {
		n, err := in.Read(one)
		switch {
		case n > 0 && one[0] == '\n', err == io.EOF:
			return string(line), nil
		case err != nil:
			return "", err
		case n > 0:
			line = append(line, one[0])
		}
	}
	return "", errors.New("the line is too long")
}

// hidden reports why a secret may not be sent: others could read it on the way.
func (b *brokers) hidden(mechanism string) error {
	for _, one := range b.list {
		host, _, _ := net.SplitHostPort(one.addr)
		if (one.scheme == "tcp" || one.scheme == "ws") && !isLoopback(host) {
			return usagef("--brokers %s: %s sends a secret in clear there; give tls://, wss:// or SCRAM", one, mechanism)
		}
	}
	return nil
}

// logIn logs a connection in that is spoken to without franz-go's client.
func (b *brokers) logIn(ctx context.Context, conn net.Conn, host string) error {
	if b.mechanism == nil {
		return nil
	}
	handshake := kmsg.NewPtrSASLHandshakeRequest()
	handshake.Version, handshake.Mechanism = 1, b.mechanism.Name()
	offered := kmsg.NewPtrSASLHandshakeResponse()
	offered.Version = 1
	if err := exchange(conn, handshake, offered); err != nil {
		return err
	}
	if err := kerr.ErrorForCode(offered.ErrorCode); err != nil {
		return fmt.Errorf("%s: %w; it offers %s", b.mechanism.Name(), err, strings.Join(offered.SupportedMechanisms, ", "))
	}
	session, message, err := b.mechanism.Authenticate(ctx, host)
	for done := false; !done && err == nil; {
		request := kmsg.NewPtrSASLAuthenticateRequest()
		request.Version, request.SASLAuthBytes = 1, message
		answer := kmsg.NewPtrSASLAuthenticateResponse()
		answer.Version = 1
		if err = exchange(conn, request, answer); err != nil {
			break
		}
		if err = kerr.ErrorForCode(answer.ErrorCode); err == nil {
			done, message, err = session.Challenge(answer.SASLAuthBytes)
		}
	}
	return err
}

// exchange sends a request and reads its answer, both in versions without flexible headers.
func exchange(conn net.Conn, request kmsg.Request, answer kmsg.Response) error {
	const correlation = 2
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("trimaran")).AppendRequest(nil, request, correlation)
	if _, err := conn.Write(frame); err != nil {
		return err
	}
	var head [8]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 4 || size > maxSecret || binary.BigEndian.Uint32(head[4:]) != correlation {
		return errors.New("it does not answer as a Trimaran node does")
	}
	body := make([]byte, size-4)
	if _, err := io.ReadFull(conn, body); err != nil {
		return err
	}
	return answer.ReadFrom(body)
}

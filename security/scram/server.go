package scram

import (
	"crypto/hmac"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/trimaran-io/trimaran/security"
)

// Errors of an exchange. They go to the log; the client is told the same of all.
var (
	ErrPassword = errors.New("wrong password")
	ErrUser     = errors.New("unknown user")
	ErrAuthz    = errors.New("one user wants to act as another")
	errNonce    = errors.New("the final nonce is not that of this exchange")
	errTurn     = errors.New("no message is expected")
)

// Server is the server's half of one exchange. It takes two messages.
type Server struct {
	mechanism string
	find      func(user string) (security.ScramCredential, bool)
	secret    []byte
	nonce     string // of this side

	step       int
	first      clientFirst
	answer     string // the first of this side
	credential security.ScramCredential
	known      bool
}

// NewServer begins an exchange of a mechanism that is one of package security's. find gives what is
// kept of a user's password. A user that it does not know gets a decoy, made of secret, and fails
// with the last message, as a wrong password does.
func NewServer(mechanism string, secret []byte, find func(user string) (security.ScramCredential, bool)) *Server {
	var random [18]byte
	_, _ = rand.Read(random[:]) // never fails (crypto/rand)
	return newServer(mechanism, secret, find, base64.StdEncoding.EncodeToString(random[:]))
}

func newServer(mechanism string, secret []byte, find func(user string) (security.ScramCredential, bool), nonce string) *Server {
	return &Server{mechanism: mechanism, find: find, secret: secret, nonce: nonce}
}

// User is the name that the client gave; "" before its first message.
func (s *Server) User() string { return s.first.user }

// Credential is what the user was judged by.
func (s *Server) Credential() security.ScramCredential { return s.credential }

// Step takes the client's next message and gives the answer to it. done says that the client has
// proved that it knows the password. After an error the exchange is over.
func (s *Server) Step(message []byte) (answer []byte, done bool, err error) {
	s.step++
	switch s.step {
	case 1:
		answer, err = s.begin(string(message))
	case 2:
		answer, err = s.finish(string(message))
		done = err == nil
	default:
		err = errTurn
	}
	if err != nil {
		s.step = 2
	}
	return answer, done, err
}

func (s *Server) begin(message string) ([]byte, error) {
	var err error
	if s.first, err = parseClientFirst(message); err != nil {
		return nil, err
	}
	if s.first.authz != "" && s.first.authz != s.first.user {
		return nil, ErrAuthz
	}
	decoy := Decoy(s.mechanism, s.secret, s.first.user)
	if s.credential, s.known = s.find(s.first.user); !s.known {
		s.credential = decoy
	}
	s.answer = fmt.Sprintf("r=%s%s,s=%s,i=%d", s.first.nonce, s.nonce,
		base64.StdEncoding.EncodeToString(s.credential.Salt), s.credential.Iterations)
	return []byte(s.answer), nil
}

func (s *Server) finish(message string) ([]byte, error) {
	final, err := parseClientFinal(message)
	if err != nil {
		return nil, err
	}
	// The header as it came, or "n,,": franz-go says the latter whatever it said before.
	if b := string(final.binding); b != s.first.gs2 && b != "n,," {
		return nil, errBinding
	}
	// librdkafka before 2.6.1 sends the client's part twice. Any other nonce could be one of an
	// exchange that somebody has listened to (CVE-2024-56128).
	sent := s.first.nonce + s.nonce
	if final.nonce != sent && final.nonce != s.first.nonce+sent {
		return nil, errNonce
	}
	h := hashOf(s.mechanism)
	said := s.first.bare + "," + s.answer + "," + final.withoutProof
	signature := sum(h, s.credential.StoredKey, said)
	if len(final.proof) != len(signature) {
		return nil, fmt.Errorf("%w: a proof of %d bytes", errMalformed, len(final.proof))
	}
	client := make([]byte, len(signature))
	for i := range signature {
		client[i] = final.proof[i] ^ signature[i]
	}
	digest := h()
	digest.Write(client)
	fits := hmac.Equal(digest.Sum(nil), s.credential.StoredKey)
	verifier := sum(h, s.credential.ServerKey, said)
	switch {
	case !s.known:
		return nil, ErrUser
	case !fits:
		return nil, ErrPassword
	}
	return []byte("v=" + base64.StdEncoding.EncodeToString(verifier)), nil
}

// Package scram is SCRAM (RFC 5802, RFC 7677) as Kafka speaks it.
package scram

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"

	"github.com/trimaran-io/trimaran/security"
)

// hashOf gives the hash function of a mechanism, nil for one that is not known.
func hashOf(mechanism string) func() hash.Hash {
	switch mechanism {
	case security.ScramSHA256:
		return sha256.New
	case security.ScramSHA512:
		return sha512.New
	}
	return nil
}

// Salted derives the SaltedPassword (RFC 5802, section 3). The password's bytes are hashed as they
// are, without SASLprep, as Kafka and its clients do.
func Salted(mechanism, password string, salt []byte, iterations int) ([]byte, error) {
	h := hashOf(mechanism)
	if h == nil {
		return nil, fmt.Errorf("unknown mechanism %q", mechanism)
	}
	return pbkdf2.Key(h, password, salt, iterations, h().Size())
}

// Keys gives what a server keeps of a SaltedPassword: StoredKey and ServerKey. They are nil where
// the mechanism is not known.
func Keys(mechanism string, salted []byte) (stored, server []byte) {
	h := hashOf(mechanism)
	if h == nil {
		return nil, nil
	}
	mac := func(text string) []byte {
		m := hmac.New(h, salted)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	sum := h()
	sum.Write(mac("Client Key"))
	return sum.Sum(nil), mac("Server Key")
}

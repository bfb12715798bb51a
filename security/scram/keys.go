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

// hashOf gives the hash of a mechanism, nil for one that is not known.
func hashOf(mechanism string) func() hash.Hash {
	switch mechanism {
	case security.ScramSHA256:
		return sha256.New
	case security.ScramSHA512:
		return sha512.New
	}
	return nil
}

// Salted is SaltedPassword of RFC 5802, section 3: 32 bytes for SCRAM-SHA-256, 64 for
// SCRAM-SHA-512. The error is a mechanism that is neither, or iterations below 1.
func Salted(mechanism, password string, salt []byte, iterations int) ([]byte, error) {
	h := hashOf(mechanism)
	if h == nil {
		return nil, fmt.Errorf("mechanism %q is not one of SCRAM's that are known here", mechanism)
	}
	return pbkdf2.Key(h, password, salt, iterations, h().Size())
}

// Keys are StoredKey and ServerKey of RFC 5802, section 3, which are kept instead of a password;
// nil for a mechanism that is not known.
func Keys(mechanism string, salted []byte) (stored, server []byte) {
	h := hashOf(mechanism)
	if h == nil {
		return nil, nil
	}
	client := sum(h, salted, "Client Key")
	digest := h()
	digest.Write(client)
	return digest.Sum(nil), sum(h, salted, "Server Key")
}

// sum is HMAC of a text.
func sum(h func() hash.Hash, key []byte, text string) []byte {
	mac := hmac.New(h, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// What a user has that nobody knows, so that it looks like most that are known: the iterations
// that `trimaran user` takes, and the bytes of its salts.
const (
	DefaultIterations = 8192
	SaltBytes         = 16
)

// Decoy is a credential for a user that there is none of: always the same for the same name as
// long as the secret is the same, and of no password.
func Decoy(mechanism string, secret []byte, user string) security.ScramCredential {
	h := hashOf(mechanism)
	return security.ScramCredential{
		Salt:       sum(sha256.New, secret, "salt\x00"+user)[:SaltBytes],
		StoredKey:  sum(h, secret, "stored\x00"+user),
		ServerKey:  sum(h, secret, "server\x00"+user),
		Iterations: DefaultIterations,
	}
}

// Check reports whether the password is that of the credential. It takes as long for a right one as
// for a wrong one: about 4 ms for 8192 iterations of SHA-256.
func Check(mechanism, password string, c security.ScramCredential) bool {
	salted, err := Salted(mechanism, password, c.Salt, c.Iterations)
	if err != nil {
		return false
	}
	stored, _ := Keys(mechanism, salted)
	return hmac.Equal(stored, c.StoredKey)
}

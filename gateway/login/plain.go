package login

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/jwt"
)

var errMessage = errors.New("malformed message")

// maxPassword bounds a password, in bytes.
const maxPassword = 1 << 10

// parsePlain reads PLAIN's message (RFC 4616): who to act as, NUL, user, NUL, password. Who to act
// as is empty or the user.
func parsePlain(message []byte) (user, password string, err error) {
	parts := bytes.Split(message, []byte{0})
	if len(parts) != 3 || !utf8.Valid(message) {
		return "", "", errMessage
	}
	authz, user, password := string(parts[0]), string(parts[1]), string(parts[2])
	switch {
	case user == "" || len(user) > security.MaxName || password == "" || len(password) > maxPassword:
		return "", "", errMessage
	case authz != "" && authz != user:
		return user, "", errAuthz
	}
	return user, password, nil
}

// parseBearer reads OAUTHBEARER's message (RFC 7628, section 3.1): "n,", who to act as, ",", and
// pairs of key and value that end with 0x01, of which auth has the token. authz is empty or who to
// act as.
func parseBearer(message []byte) (token, authz string, err error) {
	if len(message) > jwt.MaxBytes+4<<10 || !utf8.Valid(message) {
		return "", "", errMessage
	}
	head, rest, ok := strings.Cut(string(message), "\x01")
	name, begins := strings.CutPrefix(head, "n,")
	name, ends := strings.CutSuffix(name, ",")
	if !ok || !begins || !ends {
		return "", "", errMessage
	}
	if name != "" {
		if name, ok = strings.CutPrefix(name, "a="); !ok || name == "" {
			return "", "", errMessage
		}
		authz = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(name)
	}
	// Every pair ends with 0x01, and one more ends the message.
	rest, ok = strings.CutSuffix(rest, "\x01\x01")
	if !ok {
		return "", "", errMessage
	}
	for pair := range strings.SplitSeq(rest, "\x01") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return "", "", errMessage
		}
		if key != "auth" {
			continue // extensions (KIP-342)
		}
		scheme, text, ok := strings.Cut(value, " ")
		if !ok || !strings.EqualFold(scheme, "Bearer") || token != "" {
			return "", "", errMessage
		}
		token = strings.TrimSpace(text)
	}
	if token == "" || len(token) > jwt.MaxBytes {
		return "", "", errMessage
	}
	return token, authz, nil
}

package scram

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/trimaran-io/trimaran/security"
)

// maxMessage bounds a client's message, in bytes: names have at most 249, nonces some dozens.
const maxMessage = 4 << 10

// Errors of messages. They go to the log, never to the client.
var (
	errMalformed = errors.New("malformed SCRAM message")
	errBinding   = errors.New("channel binding is asked for, and not offered")
	errToken     = errors.New("a delegation token; there are none")
)

// clientFirst is the client's first message (RFC 5802, section 7).
type clientFirst struct {
	gs2   string // the header with both commas, as it came
	authz string
	bare  string // the rest
	user  string
	nonce string
}

func parseClientFirst(message string) (f clientFirst, err error) {
	if len(message) > maxMessage || !utf8.ValidString(message) {
		return f, fmt.Errorf("%w: %d bytes", errMalformed, len(message))
	}
	flag, rest, _ := strings.Cut(message, ",")
	authz, bare, ok := strings.Cut(rest, ",")
	switch {
	case strings.HasPrefix(flag, "p="):
		return f, errBinding
	case !ok || flag != "n" && flag != "y":
		return f, fmt.Errorf("%w: its head", errMalformed)
	}
	f.gs2, f.bare = message[:len(message)-len(bare)], bare
	if authz != "" {
		name, named := strings.CutPrefix(authz, "a=")
		if f.authz, err = unescape(name); err != nil || !named || name == "" {
			return f, fmt.Errorf("%w: the name to act as", errMalformed)
		}
	}
	attributes := strings.Split(bare, ",")
	if len(attributes) < 2 {
		return f, fmt.Errorf("%w: no nonce", errMalformed)
	}
	name, named := strings.CutPrefix(attributes[0], "n=")
	nonce, random := strings.CutPrefix(attributes[1], "r=")
	if f.user, err = unescape(name); err != nil || !named || name == "" || len(f.user) > security.MaxName {
		f.user = ""
		return f, fmt.Errorf("%w: the user's name", errMalformed)
	}
	if !random || !printable(nonce) {
		return f, fmt.Errorf("%w: the nonce", errMalformed)
	}
	f.nonce = nonce
	// Kafka's clients say here whether the name is that of a delegation token (KIP-48); what else
	// is said is passed over.
	for _, extension := range attributes[2:] {
		key, value, ok := strings.Cut(extension, "=")
		if !ok || key == "" {
			return f, fmt.Errorf("%w: an extension", errMalformed)
		}
		if key == "tokenauth" && strings.EqualFold(value, "true") {
			return f, errToken
		}
	}
	return f, nil
}

// clientFinal is the client's final message.
type clientFinal struct {
	binding      []byte
	nonce        string
	proof        []byte
	withoutProof string
}

func parseClientFinal(message string) (f clientFinal, err error) {
	if len(message) > maxMessage || !utf8.ValidString(message) {
		return f, fmt.Errorf("%w: %d bytes", errMalformed, len(message))
	}
	at := strings.LastIndex(message, ",p=")
	if at < 0 {
		return f, fmt.Errorf("%w: no proof", errMalformed)
	}
	f.withoutProof = message[:at]
	if f.proof, err = base64.StdEncoding.DecodeString(message[at+3:]); err != nil {
		return f, fmt.Errorf("%w: the proof", errMalformed)
	}
	attributes := strings.Split(f.withoutProof, ",")
	binding, bound := strings.CutPrefix(attributes[0], "c=")
	if f.binding, err = base64.StdEncoding.DecodeString(binding); err != nil || !bound || len(attributes) < 2 {
		return f, fmt.Errorf("%w: channel binding", errMalformed)
	}
	nonce, random := strings.CutPrefix(attributes[1], "r=")
	if !random || !printable(nonce) {
		return f, fmt.Errorf("%w: the final nonce", errMalformed)
	}
	f.nonce = nonce
	return f, nil
}

// unescape reads a name (saslname of RFC 5802): "=2C" is a comma, "=3D" is "=", and "=" stands
// nowhere else.
func unescape(name string) (string, error) {
	if !strings.Contains(name, "=") {
		return name, nil
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(name, "=")
		b.WriteString(before)
		switch {
		case !found:
			return b.String(), nil
		case strings.HasPrefix(after, "2C"):
			b.WriteByte(',')
		case strings.HasPrefix(after, "3D"):
			b.WriteByte('=')
		default:
			return "", errMalformed
		}
		name = after[2:]
	}
}

// printable reports whether s may be a nonce: printable ASCII without commas, and not empty.
func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < 0x21 || c > 0x7e || c == ',' {
			return false
		}
	}
	return s != ""
}

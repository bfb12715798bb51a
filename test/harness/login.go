package harness

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Login is how a Wire says who it is, by SCRAM-SHA-256 (RFC 5802, RFC 7677), written from the
// standard and not from the product. A nil Login says nothing.
type Login struct {
	User, Password string
}

// Dial connects and logs in.
func (l *Login) Dial(addr string, within time.Duration) (*Wire, error) {
	w, err := DialWireWithin(addr, within)
	if err != nil || l == nil {
		return w, err
	}
	if err := l.On(w); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// On logs a connection in.
func (l *Login) On(w *Wire) error {
	handshake := kmsg.NewPtrSASLHandshakeRequest()
	handshake.Version, handshake.Mechanism = 1, "SCRAM-SHA-256"
	answer, err := w.Ask(handshake)
	if err != nil {
		return err
	}
	if code := answer.(*kmsg.SASLHandshakeResponse).ErrorCode; code != 0 {
		return ErrorCode(code)
	}
	say := func(text string) (string, error) {
		req := kmsg.NewPtrSASLAuthenticateRequest()
		req.Version, req.SASLAuthBytes = 1, []byte(text)
		answer, err := w.Ask(req)
		if err != nil {
			return "", err
		}
		resp := answer.(*kmsg.SASLAuthenticateResponse)
		if resp.ErrorCode != 0 {
			return "", ErrorCode(resp.ErrorCode)
		}
		return string(resp.SASLAuthBytes), nil
	}
	bare := "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(l.User) + ",r=" + rand.Text()
	first, err := say("n,," + bare)
	if err != nil {
		return err
	}
	attributes := map[string]string{}
	for part := range strings.SplitSeq(first, ",") {
		key, value, _ := strings.Cut(part, "=")
		attributes[key] = value
	}
	salt, err := base64.StdEncoding.DecodeString(attributes["s"])
	if err != nil {
		return fmt.Errorf("SCRAM: %q: %w", first, err)
	}
	iterations, err := strconv.Atoi(attributes["i"])
	if err != nil {
		return fmt.Errorf("SCRAM: %q: %w", first, err)
	}
	salted, err := pbkdf2.Key(sha256.New, l.Password, salt, iterations, sha256.Size)
	if err != nil {
		return err
	}
	mac := func(key []byte, text string) []byte {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	final := "c=biws,r=" + attributes["r"]
	said := bare + "," + first + "," + final
	proof := mac(salted, "Client Key")
	stored := sha256.Sum256(proof)
	for i, b := range mac(stored[:], said) {
		proof[i] ^= b
	}
	last, err := say(final + ",p=" + base64.StdEncoding.EncodeToString(proof))
	if err != nil {
		return err
	}
	if want := "v=" + base64.StdEncoding.EncodeToString(mac(mac(salted, "Server Key"), said)); last != want {
		return fmt.Errorf("SCRAM: the server does not know the password: %q", last)
	}
	return nil
}

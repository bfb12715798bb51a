package scram

import (
	"crypto/hmac"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/security"
)

// credentialOf is what is kept of a password.
func credentialOf(t testing.TB, mechanism, password string, salt []byte, iterations int) security.ScramCredential {
	t.Helper()
	salted, err := Salted(mechanism, password, salt, iterations)
	if err != nil {
		t.Fatal(err)
	}
	stored, server := Keys(mechanism, salted)
	return security.ScramCredential{Salt: salt, StoredKey: stored, ServerKey: server, Iterations: iterations}
}

func only(user string, c security.ScramCredential) func(string) (security.ScramCredential, bool) {
	return func(u string) (security.ScramCredential, bool) { return c, u == user }
}

// The exchange of RFC 7677, section 3.
func TestRFC7677(t *testing.T) {
	salt, _ := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	c := credentialOf(t, security.ScramSHA256, "pencil", salt, 4096)
	s := newServer(security.ScramSHA256, nil, only("user", c), `%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0`)
	for _, step := range []struct {
		in, out string
		done    bool
	}{
		{"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", false},
		{"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
			"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", true},
	} {
		out, done, err := s.Step([]byte(step.in))
		if err != nil || string(out) != step.out || done != step.done {
			t.Fatalf("%s: %s, done %v, %v; want %s", step.in, out, done, err, step.out)
		}
	}
	if _, done, err := s.Step([]byte("n,,n=user,r=a")); err == nil || done {
		t.Error("an exchange that is over goes on")
	}
}

// exchange plays a client that knows the password and says what the test wants it to.
type exchange struct {
	mechanism, password, first, binding string
	nonce                               func(client, sent string) string
	tail                                string // behind the nonce of the final message
}

func (e exchange) run(t testing.TB, s *Server) error {
	out, _, err := s.Step([]byte(e.first))
	if err != nil {
		return err
	}
	var nonce, salt64 string
	var iterations int
	parts := strings.Split(string(out), ",")
	nonce, salt64 = parts[0][2:], parts[1][2:]
	if _, err := fmt.Sscanf(parts[2], "i=%d", &iterations); err != nil {
		t.Fatal(err)
	}
	salt, _ := base64.StdEncoding.DecodeString(salt64)
	_, bare, _ := strings.Cut(e.first, ",")
	_, bare, _ = strings.Cut(bare, ",")
	client := strings.TrimPrefix(strings.Split(bare, ",")[1], "r=")
	if e.nonce != nil {
		nonce = e.nonce(client, nonce)
	}
	without := "c=" + e.binding + ",r=" + nonce + e.tail
	salted, err := Salted(e.mechanism, e.password, salt, iterations)
	if err != nil {
		t.Fatal(err)
	}
	h := hashOf(e.mechanism)
	stored, serverKey := Keys(e.mechanism, salted)
	said := bare + "," + string(out) + "," + without
	proof := sum(h, salted, "Client Key")
	for i, b := range sum(h, stored, said) {
		proof[i] ^= b
	}
	out, done, err := s.Step([]byte(without + ",p=" + base64.StdEncoding.EncodeToString(proof)))
	if err != nil {
		return err
	}
	want := "v=" + base64.StdEncoding.EncodeToString(sum(h, serverKey, said))
	if !done || !hmac.Equal(out, []byte(want)) {
		t.Errorf("done %v with %s, want %s", done, out, want)
	}
	return nil
}

func TestExchanges(t *testing.T) {
	const password = "pä§§=,wörd"
	for _, mechanism := range []string{security.ScramSHA256, security.ScramSHA512} {
		c := credentialOf(t, mechanism, password, []byte("0123456789abcdef"), 4096)
		right := exchange{mechanism: mechanism, password: password, first: "n,,n=alice,r=abc", binding: "biws"}
		for name, try := range map[string]struct {
			change func(*exchange)
			want   error
		}{
			"right":             {func(*exchange) {}, nil},
			"y":                 {func(e *exchange) { e.first, e.binding = "y,,n=alice,r=abc", "eSws" }, nil},
			"biws after y":      {func(e *exchange) { e.first = "y,,n=alice,r=abc" }, nil},
			"foreign binding":   {func(e *exchange) { e.binding = "eSws" }, errBinding},
			"p":                 {func(e *exchange) { e.first = "p=tls-unique,,n=alice,r=abc" }, errBinding},
			"authz":             {func(e *exchange) { e.first = "n,a=alice,n=alice,r=abc" }, nil},
			"foreign authz":     {func(e *exchange) { e.first = "n,a=root,n=alice,r=abc" }, ErrAuthz},
			"tokenauth":         {func(e *exchange) { e.first += ",tokenauth=true" }, errToken},
			"tokenauth=TRUE":    {func(e *exchange) { e.first += ",tokenauth=TRUE" }, errToken},
			"tokenauth=false":   {func(e *exchange) { e.first += ",tokenauth=false" }, nil},
			"extension":         {func(e *exchange) { e.first += ",x=y=z" }, nil},
			"extension at last": {func(e *exchange) { e.tail = ",x=y" }, nil},
			"wrong":             {func(e *exchange) { e.password = "password" }, ErrPassword},
			"unknown":           {func(e *exchange) { e.first = "n,,n=bob,r=abc" }, ErrUser},
			"doubled nonce":     {func(e *exchange) { e.nonce = func(c, sent string) string { return c + sent } }, nil},
			"client's nonce":    {func(e *exchange) { e.nonce = func(c, sent string) string { return c } }, errNonce},
			"half a nonce":      {func(e *exchange) { e.nonce = func(c, sent string) string { return sent[len(c):] } }, errNonce},
			"longer nonce":      {func(e *exchange) { e.nonce = func(c, sent string) string { return sent + "x" } }, errNonce},
			"another's before":  {func(e *exchange) { e.nonce = func(c, sent string) string { return "x" + sent } }, errNonce},
		} {
			e := right
			try.change(&e)
			if err := e.run(t, NewServer(mechanism, []byte("secret"), only("alice", c))); !errors.Is(err, try.want) {
				t.Errorf("%s, %s: %v, want %v", mechanism, name, err, try.want)
			}
		}
	}
}

// An exchange that somebody listened to is of no use.
func TestReplay(t *testing.T) {
	c := credentialOf(t, security.ScramSHA256, "pencil", []byte("salt"), 4096)
	first := "n,,n=user,r=abc"
	var heard string
	s := NewServer(security.ScramSHA256, nil, only("user", c))
	out, _, _ := s.Step([]byte(first))
	nonce := strings.Split(string(out), ",")[0]
	salted, _ := Salted(security.ScramSHA256, "pencil", []byte("salt"), 4096)
	h := hashOf(security.ScramSHA256)
	stored, _ := Keys(security.ScramSHA256, salted)
	proof := sum(h, salted, "Client Key")
	for i, b := range sum(h, stored, "n=user,r=abc,"+string(out)+",c=biws,"+nonce) {
		proof[i] ^= b
	}
	heard = "c=biws," + nonce + ",p=" + base64.StdEncoding.EncodeToString(proof)
	if _, done, err := s.Step([]byte(heard)); err != nil || !done {
		t.Fatal(err)
	}
	s = NewServer(security.ScramSHA256, nil, only("user", c))
	if _, _, err := s.Step([]byte(first)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Step([]byte(heard)); !errors.Is(err, errNonce) {
		t.Errorf("%v", err)
	}
}

// A user that there is none of looks like one, the same at every try and node.
func TestDecoys(t *testing.T) {
	none := func(string) (security.ScramCredential, bool) { return security.ScramCredential{}, false }
	begin := func(secret, user string) string {
		s := newServer(security.ScramSHA256, []byte(secret), none, "n")
		out, _, err := s.Step([]byte("n,,n=" + user + ",r=abc"))
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	first, again := begin("s", "a"), begin("s", "a")
	if first != again || first == begin("s", "b") || first == begin("z", "a") {
		t.Error("a decoy's salt is not that of its name and secret")
	}
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{"a": "a", "a=2Cb=3Dc": "a,b=c", "=3D": "=", "=3D2C": "=2C", "ü": "ü"} {
		if got, err := unescape(in); err != nil || got != want {
			t.Errorf("%q is %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"=", "a=", "a=2c", "a=3d", "=2", "==3D", "=41"} {
		if got, err := unescape(in); err == nil {
			t.Errorf("%q is %q", in, got)
		}
	}
	for _, in := range []string{
		"", "n", "n,", "n,,", "n,,n=a", "n,,n=,r=x", "n,,r=x,n=a", "n,,n=a,r=", "n,,n=a,r=x y", "x,,n=a,r=x",
		"n,b=c,n=a,r=x", "n,a=,n=a,r=x", "n,,m=x,n=a,r=x", "n,,n=a,r=x,", "n,,n=a,r=x,=y", "n,,n=\xff,r=x",
		"n,,n=" + strings.Repeat("a", maxMessage) + ",r=x",
		"n,,n=" + strings.Repeat("a", security.MaxName+1) + ",r=x",
	} {
		if f, err := parseClientFirst(in); err == nil {
			t.Errorf("%q is taken as %+v", in, f)
		}
	}
	for _, in := range []string{"", "c=biws,r=x", "c=biws,p=AAAA", "r=x,c=biws,p=AAAA", "c=!,r=x,p=AAAA", "c=biws,r=x,p=!", "c=biws,r=,p=AAAA"} {
		if f, err := parseClientFinal(in); err == nil {
			t.Errorf("%q is taken as %+v", in, f)
		}
	}
}

// No message gets anybody in who does not know the password, and none ends the process.
func FuzzServer(f *testing.F) {
	f.Add("n,,n=user,r=abc", "c=biws,r=abcn,p=AAAA")
	f.Add("y,a=us=2Cer,n=us=2Cer,r=abc,x=y", "c=eSws,r=abcabcn,x=y,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
	c := credentialOf(f, security.ScramSHA256, "a password that nobody guesses", []byte("salt"), 1)
	f.Fuzz(func(t *testing.T, first, final string) {
		s := newServer(security.ScramSHA256, []byte("secret"), only("user", c), "n")
		for _, message := range []string{first, final, final} {
			if _, done, _ := s.Step([]byte(message)); done {
				t.Fatalf("%q and %q log in", first, final)
			}
		}
	})
}

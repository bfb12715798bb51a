package login

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/scram"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParsePlain(t *testing.T) {
	if user, password, err := parsePlain([]byte("a\x00a\x00pä§§=,wörd")); err != nil || user != "a" || password != "pä§§=,wörd" {
		t.Errorf("%q, %q, %v", user, password, err)
	}
	for _, in := range []string{"", "a", "\x00a", "\x00a\x00", "\x00\x00p", "\x00a\x00p\x00", "b\x00a\x00p", "\x00a\x00\xff", "\x00a\x00" + strings.Repeat("p", maxPassword+1)} {
		if user, _, err := parsePlain([]byte(in)); err == nil {
			t.Errorf("%q is taken for %q", in, user)
		}
	}
}

func TestParseBearer(t *testing.T) {
	for in, want := range map[string][2]string{
		"n,,\x01auth=Bearer abc\x01\x01":                       {"abc", ""},
		"n,a=al=2Cice,\x01auth=bearer abc\x01\x01":             {"abc", "al,ice"},
		"n,,\x01traceId=1\x01auth=Bearer abc\x01x=y=z\x01\x01": {"abc", ""},
	} {
		if token, authz, err := parseBearer([]byte(in)); err != nil || token != want[0] || authz != want[1] {
			t.Errorf("%q: %q, %q, %v", in, token, authz, err)
		}
	}
	for _, in := range []string{
		"", "n,,", "n,,\x01\x01", "n,,\x01auth=Bearer abc\x01", "y,,\x01auth=Bearer abc\x01\x01", "n,b=c,\x01auth=Bearer abc\x01\x01",
		"n,,\x01auth=Basic abc\x01\x01", "n,,\x01auth=Bearer \x01\x01", "n,,\x01auth=Bearer a\x01auth=Bearer b\x01\x01", "n,,\x01auth\x01\x01",
		"n,a=,\x01auth=Bearer abc\x01\x01", "n,,\x01auth=Bearer " + strings.Repeat("a", 17<<10) + "\x01\x01",
	} {
		if token, _, err := parseBearer([]byte(in)); err == nil {
			t.Errorf("%q is taken: %q", in, token)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte("n,a=b,\x01auth=Bearer abc\x01\x01"))
	f.Add([]byte("a\x00a\x00p"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if user, password, err := parsePlain(in); err == nil && (user == "" || password == "") {
			t.Fatalf("%q", in)
		}
		if token, _, err := parseBearer(in); err == nil && token == "" {
			t.Fatalf("%q", in)
		}
	})
}

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter()
		tries := func(host, user string) (n int) {
			for l.allows(host, user) && n < 1000 {
				l.failed(host, user)
				n++
			}
			return n
		}
		if n := tries("h1", "alice"); n != ofPair.burst {
			t.Errorf("one user from one address: %d", n)
		}
		if !l.allows("h1", "bob") || !l.allows("h2", "alice") {
			t.Error("others are held back")
		}
		time.Sleep(2 * time.Second)
		if n := tries("h1", "alice"); n != 1 {
			t.Errorf("after two seconds: %d", n)
		}
		all := 0
		for i := range 100 {
			all += tries("h3", fmt.Sprint("user", i))
		}
		if all != ofHost.burst {
			t.Errorf("all from one address: %d", all)
		}
		l.succeeded("home", "carol")
		all = 0
		for i := range 100 {
			all += tries(fmt.Sprint("host", i), "carol")
		}
		if all != ofUser.burst {
			t.Errorf("one user from everywhere: %d", all)
		}
		if !l.allows("home", "carol") {
			t.Error("somebody locks a user out from where it is known")
		}
		all = 0
		for i := range 100 {
			all += tries(fmt.Sprintf("2001:db8::%x", i), fmt.Sprint("one", i))
		}
		if all != ofHost.burst {
			t.Errorf("all from one network of IPv6, whose addresses a client may choose: %d", all)
		}
		if !l.allows("2001:db8:0:1::1", "one1") {
			t.Error("another network is held back")
		}
		for i := range 3 * maxRemembered {
			l.failed(fmt.Sprint(i), fmt.Sprint(i))
			l.succeeded(fmt.Sprint(i), fmt.Sprint(i))
		}
		if len(l.hosts) > maxRemembered || len(l.pairs) > maxRemembered || len(l.users) > maxRemembered || len(l.good) > maxRemembered {
			t.Errorf("%d, %d, %d, %d are remembered", len(l.hosts), len(l.pairs), len(l.users), len(l.good))
		}
	})
}

// kept has one user, as `trimaran user create` makes them.
type kept struct{}

func (kept) Scram(user, mechanism string) (security.ScramCredential, bool) {
	if user != "alice" {
		return security.ScramCredential{}, false
	}
	return security.ScramCredential{Salt: make([]byte, scram.SaltBytes), StoredKey: []byte("k"), ServerKey: []byte("k"), Iterations: scram.DefaultIterations}, true
}

// A user whom nobody knows costs the work that a wrong password does, and SCRAM tells of it what it
// tells of one that is known: salts of that size, those iterations, and the same when asked again.
func TestUnknownUsersAreAsMuchWork(t *testing.T) {
	s, err := New(Config{Mechanisms: []string{Plain, security.ScramSHA256, security.ScramSHA512}, Required: true, Credentials: kept{}})
	if err != nil {
		t.Fatal(err)
	}
	type work struct {
		mechanism        string
		iterations, salt int
	}
	var done []work
	s.check = func(mechanism, _ string, c security.ScramCredential) bool {
		done = append(done, work{mechanism, c.Iterations, len(c.Salt)})
		return false
	}
	for _, user := range []string{"alice", "nobody"} {
		if _, err := s.password(t.Context(), "192.0.2.1", user, "a guess"); err == nil {
			t.Errorf("%s gets in", user)
		}
	}
	if len(done) != 2 || done[0] != done[1] || done[0].iterations != scram.DefaultIterations {
		t.Errorf("for one that is known and one that is not: %+v", done)
	}
	for _, mechanism := range []string{security.ScramSHA256, security.ScramSHA512} {
		said := func(user string) string {
			c := &Conn{server: s, facts: Facts{Host: "192.0.2.1"}, mechanism: mechanism}
			answer, _, err := c.step(t.Context(), mechanism, []byte("n,,n="+user+",r=abc"))
			if err != nil {
				t.Fatal(err)
			}
			_, told, _ := strings.Cut(string(answer), ",")
			return told
		}
		known, unknown := said("alice"), said("nobody")
		if len(known) != len(unknown) || known[len(known)-7:] != unknown[len(unknown)-7:] || unknown != said("nobody") || unknown == said("nobody2") {
			t.Errorf("%s: %q and %q", mechanism, known, unknown)
		}
	}
}

const oneKey = `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`

// Ten thousand tokens of unknown keys have the keys fetched once in a minute.
func TestUnknownKeys(t *testing.T) {
	var fetches atomic.Int64
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetches.Add(1)
		fmt.Fprint(w, oneKey)
	}))
	defer web.Close()
	k, err := NewKeySet(web.URL, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { k.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	for len(k.Known("k")) == 0 {
		time.Sleep(time.Millisecond)
	}
	for range 10_000 {
		k.Refresh(ctx)
	}
	if n := fetches.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
	k.mu.Lock()
	k.last = k.last.Add(-keysAtMost)
	k.mu.Unlock()
	if !k.Refresh(ctx) || fetches.Load() != 2 {
		t.Errorf("a minute later: %d fetches", fetches.Load())
	}
	if len(k.Known("other")) != 0 || len(k.Known("")) != 1 {
		t.Error("other keys are known")
	}
}

func TestKeySources(t *testing.T) {
	for _, bad := range []string{"http://id.example/keys", "ftp://id.example", "https://user:secret@id.example", "file:///etc/passwd", "https://"} {
		if _, err := NewKeySet(bad, nil); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte(oneKey), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := NewKeySet(file, slog.New(slog.DiscardHandler))
	if err != nil || k.fetch(t.Context()) != nil || len(k.Known("k")) != 1 {
		t.Errorf("a file: %v", err)
	}
	// A fetch that began by itself is the one that was asked for.
	k.kick <- struct{}{}
	if k.fetch(t.Context()) != nil || len(k.kick) > 0 {
		t.Error("it would be fetched once more")
	}
	// What cannot be read leaves the keys as they are.
	if err := os.WriteFile(file, make([]byte, maxKeysFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if k.fetch(t.Context()) == nil || len(k.Known("k")) != 1 {
		t.Error("a file that is too large is taken")
	}
	elsewhere := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound))
	defer elsewhere.Close()
	if k, _ := NewKeySet(elsewhere.URL, slog.New(slog.DiscardHandler)); k.fetch(t.Context()) == nil {
		t.Error("a redirect is followed")
	}
}

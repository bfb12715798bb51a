package secured

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/trimaran-io/trimaran/test/harness"
)

// TestStrangersAreBoundedOldestFirst: of the connections that have not logged in only so many are
// open; who has logged in is not among them, however many strangers come.
func TestStrangersAreBoundedOldestFirst(t *testing.T) {
	t.Parallel()
	const most = 50
	c := harness.New(t, harness.Options{Nodes: 1, NoShim: true, NodeArgs: append([]string{"--max-unauthenticated", fmt.Sprint(most)}, locked...)})
	n := c.Node(1)
	user(t, c, "alice")
	login := &harness.Login{User: "alice", Password: password}
	known, err := login.Dial(n.Addr(), 5*time.Second)
	must(t, err)
	defer known.Close()
	var strangers []net.Conn
	for range 3 * most {
		conn, err := net.DialTimeout("tcp", n.Addr(), 5*time.Second)
		must(t, err)
		defer conn.Close()
		// One byte, so that the node has taken this one before the next comes.
		_, err = conn.Write([]byte{0})
		must(t, err)
		strangers = append(strangers, conn)
	}
	open := func(c net.Conn, wait time.Duration) bool {
		_ = c.SetReadDeadline(time.Now().Add(wait))
		_, err := c.Read(make([]byte, 1))
		return errors.Is(err, os.ErrDeadlineExceeded)
	}
	for i, s := range strangers[:2*most] {
		if open(s, 5*time.Second) {
			t.Fatalf("stranger %d of %d is there still", i, len(strangers))
		}
	}
	left := 0
	for _, s := range strangers[2*most:] {
		if open(s, time.Millisecond) {
			left++
		}
	}
	if left != most {
		t.Errorf("%d of the youngest %d are there", left, most)
	}
	if _, err := known.Ask(kmsg.NewPtrApiVersionsRequest()); err != nil {
		t.Errorf("who has logged in is gone: %v", err)
	}
	// And who comes now and logs in is served.
	next, err := login.Dial(n.Addr(), 5*time.Second)
	must(t, err)
	next.Close()
}

// line is one of the audit log.
type line struct {
	Time, Msg            string
	Who, From, What, Why string
	Mechanism, Operation string
	Resource             string
	Before               int `json:"not_logged_before"`
}

// TestDenialsAreLinesOfJSON: who, from where, what and why of each denial, and not more lines than
// a few a second whatever a client does; the number of those left out is told. No password is among
// them.
func TestDenialsAreLinesOfJSON(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "audit.json")
	c := harness.New(t, harness.Options{Nodes: 1, NoShim: true, NodeArgs: append([]string{"--audit-log", file}, locked...)})
	n := c.Node(1)
	user(t, c, "alice")
	ask := func(user, pass string) error {
		cl := client(t, n.Addr(), plain.Auth{User: user, Pass: pass}.AsMechanism())
		defer cl.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = []kmsg.MetadataRequestTopic{{Topic: kmsg.StringPtr("hidden\n{\"who\":\"admin\"}")}}
		_, err := cl.SeedBrokers()[0].Request(ctx, req)
		return err
	}
	for _, try := range [][2]string{{"alice", "a-wrong-one"}, {"nobody", "a-wrong-one"}} {
		if err := ask(try[0], try[1]); !errors.Is(err, kerr.SaslAuthenticationFailed) {
			t.Errorf("%s: %v", try[0], err)
		}
	}
	must(t, ask("alice", password)) // and is refused the topic
	began := time.Now()
	for range 30 {
		if err := ask("somebody", "a-wrong-one"); err == nil {
			t.Error("somebody gets in")
		}
	}
	stranger, err := harness.DialWire(n.Addr())
	must(t, err)
	if _, err := stranger.Ask(kmsg.NewPtrMetadataRequest()); err == nil {
		t.Error("a stranger is answered")
	}
	stranger.Close()
	time.Sleep(2 * time.Second) // a line of its kind may be written again
	_ = ask("somebody", "a-wrong-one")
	var found []line
	text, err := os.ReadFile(file)
	must(t, err)
	most := 5 + 1 + int(time.Since(began)/time.Second) // at once, and one a second
	for lines := bufio.NewScanner(strings.NewReader(string(text))); lines.Scan(); {
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil || l.Msg != "denied" || l.From != "127.0.0.1" || l.What == "" || l.Why == "" {
			t.Errorf("%s: %v", lines.Text(), err)
		}
		found = append(found, l)
	}
	has := func(what string, is func(l line) bool) {
		t.Helper()
		for _, l := range found {
			if is(l) {
				return
			}
		}
		t.Errorf("no line of %s in\n%s", what, text)
	}
	has("a wrong password", func(l line) bool {
		return l.Who == "User:alice" && l.What == "login" && l.Why == "wrong password" && l.Mechanism == "PLAIN"
	})
	has("an unknown user", func(l line) bool { return l.Who == "User:nobody" && l.Why == "unknown user" })
	has("a right", func(l line) bool {
		return l.Who == "User:alice" && l.What == "Metadata" && l.Operation == "describe" && strings.HasPrefix(l.Resource, "hidden")
	})
	has("a stranger", func(l line) bool { return l.Who == "" && l.What == "request" })
	of, left := 0, 0
	for _, l := range found {
		if l.Who == "User:somebody" {
			of, left = of+1, left+l.Before
		}
	}
	if of < 5 || of > most || of+left != 31 {
		t.Errorf("31 failures of somebody: %d lines, at most %d, which tell of %d more", of, most, left)
	}
	for _, secret := range []string{password, "a-wrong-one"} {
		if strings.Contains(string(text), secret) || strings.Contains(n.Output(), secret) {
			t.Error("a password is in a log")
		}
	}
}

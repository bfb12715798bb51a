package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/scram"
)

func (k *keptHere) CatalogKnown() bool { return true }

func (k *keptHere) AlterCredentials(_ context.Context, alter fsm.AlterCredentials) error {
	alter.Secret = []byte("secret")
	return k.apply(fsm.CatalogCommand{AlterCredentials: &alter})
}

func userFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestReadFirstUsers(t *testing.T) {
	salted := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("x"), 32))
	kafka := `SCRAM-SHA-256=[name="carol",iterations=4096,salt="MTIz",saltedpassword="` + salted + `"]`
	users, err := readFirstUsers(userFile(t, "# first\n\nadmin:pä§§=,:wörd \r\nalice:b\n"+kafka+"\n"))
	if err != nil || len(users) != 3 || users[0].name != "admin" || users[0].password != "pä§§=,:wörd " || users[2].credential.User != "carol" || users[2].credential.Iterations != 4096 {
		t.Fatalf("%d users: %v", len(users), err)
	}
	for name, text := range map[string]string{
		"nobody": "# nobody\n", "no colon": "hunter2\n", "no password": "hunter2:\n", "no name": ":hunter2\n", "a long name": strings.Repeat("hunter2", 40) + ":x\n",
		"a long password": "a:" + strings.Repeat("hunter2", 200), "twice": "a:hunter2\na:hunter2", "twice in two ways": "carol:hunter2\n" + kafka,
		"Kafka's without an end": kafka[:len(kafka)-1], "Kafka's password": "SCRAM-SHA-256=[name=a,password=hunter2]", "a short key": "SCRAM-SHA-512" + kafka[len(security.ScramSHA256):],
		"few iterations": strings.Replace(kafka, "4096", "10", 1), "no user": strings.Replace(kafka, "carol", "", 1), "no number": strings.Replace(kafka, "4096", "hunter2", 1),
		"large": "a:b\n" + strings.Repeat("#hunter2\n", maxBootstrapFile/8),
	} {
		if users, err := readFirstUsers(userFile(t, text)); err == nil {
			t.Errorf("%s: taken as %d users", name, len(users))
		} else if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), salted) {
			t.Errorf("%s: the error has what is in the file: %v", name, err)
		}
	}
	open := userFile(t, "a:b\n")
	for mode, taken := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: true, 0o660: false, 0o644: false, 0o604: false} {
		if err := os.Chmod(open, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := readFirstUsers(open); (err == nil) != taken {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
}

// Whatever a firstUser is printed by, its password is not there.
func TestFirstUsersAreNotPrinted(t *testing.T) {
	u := firstUser{name: "a", password: "hunter2"}
	if text := fmt.Sprintf("%v %+v %#v %s", u, u, u, []firstUser{u}); strings.Contains(text, "hunter2") {
		t.Error(text)
	}
}

// Of several nodes with the file one makes the users; later starts change nothing.
func TestFirstUsersAreMadeOnce(t *testing.T) {
	k := &keptHere{catalog: fsm.NewCatalog(), changed: make(chan struct{})}
	for _, command := range []fsm.CatalogCommand{
		{FormCluster: &fsm.FormCluster{ClusterID: "c", Nodes: []fsm.Node{{ID: "n1", Incarnation: "aaaaaaaa", FeatureLevel: 4}}}},
		{RaiseFeatureLevel: &fsm.RaiseFeatureLevel{FeatureLevel: 4}},
	} {
		if err := k.apply(command); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	var nodes sync.WaitGroup
	for i := range 3 {
		nodes.Go(func() {
			createFirstUsers(t.Context(), k, []firstUser{{name: "alice", password: fmt.Sprint("p", i)}}, log)
		})
	}
	nodes.Wait()
	passes := func(want ...string) {
		t.Helper()
		for _, m := range scramMechanisms {
			c, there := k.Topics().Security().Scram("alice", m.name)
			held := there && func() bool {
				for _, password := range want {
					if scram.Check(m.name, password, c) {
						return true
					}
				}
				return false
			}()
			if held != (len(want) > 0) {
				t.Errorf("%s: there: %v, one of the passwords %v: %v", m.name, there, want, held)
			}
		}
	}
	passes("p0", "p1", "p2")
	changed, err := credentials([]firstUser{{name: "alice", password: "changed"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.AlterCredentials(t.Context(), fsm.AlterCredentials{Set: changed}); err != nil {
		t.Fatal(err)
	}
	createFirstUsers(t.Context(), k, []firstUser{{name: "alice", password: "p0"}, {name: "bob", password: "p0"}}, log)
	passes("changed")
	if n := len(k.Topics().Security().Credentials()); n != 2 {
		t.Errorf("%d credentials", n)
	}
}

package commands

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// kept is how the catalog keeps what is secret, in its log and snapshots.
var kept = regexp.MustCompile(`"(seed|secret|stored_key|server_key|salt)":"([A-Za-z0-9+/=]{20,})"`)

// keptSecrets gives what is secret in a node's data directory, by kind. That it is found there
// shows that it would be found elsewhere.
func keptSecrets(t *testing.T, data string) map[string]string {
	t.Helper()
	found, kinds := map[string]string{}, map[string]bool{}
	err := filepath.WalkDir(filepath.Join(data, "catalog"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range kept.FindAllSubmatch(text, -1) {
			kinds[string(m[1])] = true
			found[fmt.Sprint(string(m[1]), " ", len(found))] = string(m[2])
		}
		return err
	})
	if err != nil || len(kinds) != 5 {
		t.Fatalf("of the secrets that the catalog keeps only %v are found: %v", kinds, err)
	}
	return found
}

// forms are how bytes may be printed.
func forms(secret string) (all []string) {
	all = []string{secret}
	raw, err := base64.StdEncoding.DecodeString(secret)
	if err != nil || len(raw) < 8 {
		raw = []byte(secret)
	}
	dense, hexed := fmt.Sprint(raw), hex.EncodeToString(raw)
	return append(all, string(raw), dense[1:len(dense)-1], hexed, strings.ToUpper(hexed), base64.URLEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw))
}

// secrets of the cluster are in no log at debug level, page, metric, answer of a command, list of
// processes, error, or dump of the files.
func (s *securedCluster) secrets(t *testing.T, alice string) {
	secrets := keptSecrets(t, s.data(1))
	for user, password := range s.passwords {
		secrets["password of "+user] = password
	}
	for _, name := range []string{"secrets/gossip.key", "token"} {
		text, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		secrets[name] = strings.TrimSpace(string(text))
	}
	for _, name := range []string{"secrets/ca.key", "secrets/n1.key", "secrets/n2.key", "secrets/n3.key", "server.key"} {
		text, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		secrets[name] = strings.Split(string(text), "\n")[2] // of the base64
	}
	places := map[string]string{"errors of commands": strings.Join(s.said, "\n")}
	for i, n := range append(s.nodes, s.beside) {
		for _, file := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", n.Pid(), file))
			if err != nil {
				t.Fatal(err)
			}
			places[fmt.Sprint(file, " of process ", i)] = string(text)
		}
	}
	for i := 1; i <= 3; i++ {
		for _, page := range []string{"", "metrics", "healthz", "readyz"} {
			text, _, err := harness.Get(fmt.Sprintf("http://127.0.0.1:%d/%s", s.ports[i-1], page))
			if err != nil {
				t.Fatal(err)
			}
			places[fmt.Sprint("/", page, " of n", i)] = text
		}
	}
	for _, line := range []string{
		"cluster status", "cluster status --json", "user list --json", "acl list --json", "token list --json", "token list-keys --json", "topic describe events --json", "cluster verify events",
	} {
		places["trimaran "+line] = s.run(t, "trimaran "+line+" --brokers unix:"+s.data(1))
	}
	for _, n := range s.nodes {
		if _, err := n.Terminate(60 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range []string{"dump " + s.data(1), "dump --json " + s.data(1), "dump --records " + s.data(2), "dump " + s.data(2) + "/catalog", "dump --votes " + s.data(1), "verify " + s.data(1)} {
		places["trimaran log "+line] = s.run(t, "trimaran log "+line)
	}
	debug := false
	logs, err := filepath.Glob(filepath.Join(s.dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range logs {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		debug = debug || bytes.Contains(text, []byte("level=DEBUG"))
		places[filepath.Base(name)] = string(text)
	}
	if !debug || len(logs) < 4 {
		t.Errorf("%d logs, at debug level: %v", len(logs), debug)
	}
	for where, text := range places {
		if len(text) == 0 && !strings.Contains(where, "reader") {
			t.Errorf("%s is empty", where)
		}
		for what, secret := range secrets {
			for _, form := range forms(secret) {
				if strings.Contains(text, form) {
					t.Errorf("%s shows %s", where, what)
				}
			}
		}
	}
	t.Logf("%d secrets looked for in %d places", len(secrets), len(places))
}

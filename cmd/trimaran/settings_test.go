package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// loaded gives the command that args name, its flags filled as loadSettings does,
// without running it.
func loaded(t *testing.T, env map[string]string, args ...string) (*cobra.Command, error) {
	t.Helper()
	cmd, rest, err := newRoot().Find(args)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Fatal(err)
	}
	return cmd, loadSettings(cmd, func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	})
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagWinsOverEnvironmentOverFileOverDefault(t *testing.T) {
	for name, text := range map[string]string{
		"c.yaml": "zone: file\nlog-level: debug\ndata: file\ntopics: [a:1, b:2:3]\nmax-request-bytes: 4096\nlog-retention-ms: 604800001\nmax-disk-share: 0.85\nauto-create-topics: false\n",
		"c.toml": "zone = 'file'\nlog-level = 'debug'\ndata = 'file'\ntopics = ['a:1', 'b:2:3']\nmax-request-bytes = 4096\nlog-retention-ms = 604800001\nmax-disk-share = 0.85\nauto-create-topics = false\n",
		"c.json": `{"zone":"file","log-level":"debug","data":"file","topics":["a:1","b:2:3"],"max-request-bytes":4096,"log-retention-ms":604800001,"max-disk-share":0.85,"auto-create-topics":false}`,
	} {
		file := writeFile(t, name, text)
		cmd, err := loaded(t, map[string]string{"TRIMARAN_ZONE": "env", "TRIMARAN_DATA": "env", "TRIMARAN_NODE_ID": ""},
			"serve", "--config", file, "--data", "flag")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for flag, want := range map[string]string{
			"data": "flag", "zone": "env", "log-level": "debug", "topics": "[a:1,b:2:3]", "listen": defaultBroker,
			"max-request-bytes": "4096", "log-retention-ms": "604800001", "max-disk-share": "0.85", "auto-create-topics": "false", "node-id": "",
		} {
			if got := cmd.Flags().Lookup(flag).Value.String(); got != want {
				t.Errorf("%s: --%s is %q, want %q", name, flag, got, want)
			}
		}
	}
}

func TestConfigFileFromEnvironment(t *testing.T) {
	file := writeFile(t, "c.yaml", "brokers: a:1,b:2\njson: true\n")
	cmd, err := loaded(t, map[string]string{"TRIMARAN_CONFIG": file}, "cluster", "status")
	if err != nil {
		t.Fatal(err)
	}
	if got := cmd.Flags().Lookup("brokers").Value.String(); got != "[a:1,b:2]" {
		t.Errorf("--brokers is %s", got)
	}
	if got, _ := cmd.Flags().GetBool("json"); !got {
		t.Error("--json is not set")
	}
}

func TestTopicCreateHasItsOwnConfig(t *testing.T) {
	file := writeFile(t, "c.yaml", "partitions: 7\n")
	cmd, err := loaded(t, nil, "topic", "create", "x", "--config-file", file, "--config", "a=b,c", "--config", "d=e")
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := cmd.Flags().GetInt32("partitions"); n != 7 {
		t.Errorf("--partitions is %d", n)
	}
	if got, _ := cmd.Flags().GetStringArray("config"); strings.Join(got, "|") != "a=b,c|d=e" {
		t.Errorf("--config is %q", got)
	}
}

func TestSettingsThatCannotBeAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		file, text string
		env        map[string]string
		want       string
	}{
		"a misspelt key":          {"c.yaml", "lisen: x:1\n", nil, "unknown key lisen"},
		"another command's key":   {"c.yaml", "brokers: x:1\n", nil, "unknown key brokers"},
		"a nested key":            {"c.toml", "[log]\nlevel = 'info'\n", nil, "unknown key log.level"},
		"the file itself":         {"c.yaml", "config: other.yaml\n", nil, "unknown key config"},
		"a number that is none":   {"c.yaml", "max-request-bytes: many\n", nil, "max-request-bytes"},
		"a list for one value":    {"c.yaml", "data: [a, b]\n", nil, "takes one value"},
		"a file that is no YAML":  {"c.yaml", "a: b: c\n", nil, "config file"},
		"an unknown kind of file": {"c.txt", "data: x\n", nil, "config file"},
		"the environment": {"c.yaml", "data: x\n", map[string]string{"TRIMARAN_BOOTSTRAP_EXPECT": "three"},
			"environment variable TRIMARAN_BOOTSTRAP_EXPECT"},
	} {
		_, err := loaded(t, test.env, "serve", "--config", writeFile(t, test.file, test.text))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, test.want)
		}
	}
	if _, err := loaded(t, nil, "serve", "--config", filepath.Join(t.TempDir(), "none.yaml")); err == nil {
		t.Error("a file that is not there is accepted")
	}
}

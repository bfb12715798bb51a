package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func envOf(m map[string]string) func(string) (string, bool) {
	return func(k string) (string, bool) {
		v, ok := m[k]
		return v, ok
	}
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagsWinOverTheEnvironmentAndThatOverTheFile(t *testing.T) {
	file := writeFile(t, "shim.yaml", "gateways: [ 'wss://f:1', 'wss://f:2' ]\nlisten: 127.0.0.1:1\nadvertise: file:1\ndial-timeout: 7s\ntls: true\n")
	s, err := parse([]string{"-config", file, "-listen", "127.0.0.1:3"}, envOf(map[string]string{
		"TRIMARAN_SHIM_LISTEN": "127.0.0.1:2", "TRIMARAN_SHIM_ADVERTISE": "env:2", "TRIMARAN_SHIM_MAX_REQUEST_BYTES": "1000",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if s.listen != "127.0.0.1:3" || s.advertise != "env:2" || s.dialTimeout != 7*time.Second || !s.useTLS || s.maxRequestBytes != 1000 {
		t.Errorf("%+v", s)
	}
	if got := strings.Join(s.gateways, " "); got != "wss://f:1 wss://f:2" {
		t.Errorf("gateways: %s", got)
	}
	s, err = parse(nil, envOf(map[string]string{"TRIMARAN_SHIM_CONFIG": file, "TRIMARAN_SHIM_GATEWAYS": "wss://e:1,wss://e:2"}))
	if err != nil || strings.Join(s.gateways, " ") != "wss://e:1 wss://e:2" || s.listen != "127.0.0.1:1" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestGatewaysAreGivenInManyWays(t *testing.T) {
	for args, want := range map[string]string{
		"--gateways a:1,b:2":                            "ws://a:1 ws://b:2",
		"--gateways=a:1,ws://b:2 -gateways wss://c/x":   "ws://a:1 ws://b:2 wss://c/x",
		"-gateway a:1 -gateway b:2":                     "ws://a:1 ws://b:2",
		"-tls --gateway a:1 --gateways=wss://b":         "wss://a:1 wss://b",
		"--gateways [::1]:9092,a:1,a:1":                 "ws://[::1]:9092 ws://a:1",
		"-tls -tls-server-name=n -gateways=10.0.0.5:90": "wss://10.0.0.5:90",
	} {
		s, err := parse(strings.Fields(args), noEnv)
		if got := strings.Join(s.gateways, " "); err != nil || got != want {
			t.Errorf("%s gives %s, %v; want %s", args, got, err, want)
		}
	}
}

func TestSettingsThatCannotWorkAreRefused(t *testing.T) {
	over, cancel := context.WithCancel(context.Background())
	cancel() // what is taken by mistake ends at once
	for _, args := range []string{
		"", "--gateways ,", "--gateways http://a:1", "--gateways ws://user:secret@a:1", "--gateways a", "--gateways ws://", "--gateways a:1/x", "--gateways :1",
		"-tls --gateways ws://a:1", "--gateways a:1 -tls-ca x", "--gateways a:1 -tls-server-name x",
		"--gateways a:1 --advertise x", "--gateways a:1 --advertise x:0", "--gateways a:1 --advertise x:99999",
		"--gateways a:1 --max-request-bytes 7", "--gateways a:1 --max-request-bytes 999999999", "--gateways a:1 --max-memory-bytes 100",
		"--gateways a:1 --max-connections 0", "--gateways a:1 --dial-timeout 0s", "--gateways a:1 --shutdown-grace -1s",
		"--gateways a:1 --log-level loud", "--gateways a:1 extra", "--gateways a:1 --unknown", "--gateways a:1 --config /does/not/exist.yaml",
	} {
		var out, errOut bytes.Buffer
		if code := run(over, strings.Fields(args), noEnv, &out, &errOut); code != 2 || !strings.HasPrefix(errOut.String(), "trimaran-shim: ") {
			t.Errorf("%q ends with %d: %s", args, code, errOut.String())
		}
	}
	file := writeFile(t, "shim.toml", "gateways = 'a:1'\nlisten-at = 'x'\n")
	if _, err := parse([]string{"--config", file}, noEnv); err == nil || !strings.Contains(err.Error(), "listen-at") {
		t.Errorf("an unknown key in the file: %v", err)
	}
	if _, err := parse([]string{"-gateways=a:1"}, envOf(map[string]string{"TRIMARAN_SHIM_TLS": "perhaps"})); err == nil || !strings.Contains(err.Error(), "TRIMARAN_SHIM_TLS") {
		t.Errorf("an odd value in the environment: %v", err)
	}
}

func TestHelpAndVersion(t *testing.T) {
	var out, errOut bytes.Buffer
	if code := run(context.Background(), []string{"--help"}, noEnv, &out, &errOut); code != 0 {
		t.Errorf("--help ends with %d", code)
	}
	help := out.String()
	// The examples are command lines that are understood.
	examples := 0
	for line := range strings.Lines(help) {
		fields := strings.Fields(line)
		env := map[string]string{}
		for len(fields) > 0 && strings.Contains(fields[0], "=") {
			name, value, _ := strings.Cut(fields[0], "=")
			env[name], fields = value, fields[1:]
		}
		if len(fields) < 3 || fields[0] != "trimaran-shim" || strings.Contains(line, "…") || !strings.HasPrefix(line, "  ") {
			continue
		}
		examples++
		if _, err := parse(fields[1:], envOf(env)); err != nil {
			t.Errorf("%s: %v", strings.TrimSpace(line), err)
		}
	}
	if examples < 4 {
		t.Errorf("--help shows %d examples:\n%s", examples, help)
	}
	for _, arg := range []string{"--version", "-version"} {
		out.Reset()
		if code := run(context.Background(), []string{arg}, noEnv, &out, &errOut); code != 0 || out.String() != "trimaran-shim dev\n" {
			t.Errorf("%s ends with %d: %s", arg, code, out.String())
		}
	}
}

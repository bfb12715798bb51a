package main

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/security"
)

func TestTheSocketOfADataDirectory(t *testing.T) {
	for what, dir := range map[string]string{
		"short": t.TempDir(), "long": filepath.Join(t.TempDir(), strings.Repeat("long/", 40)),
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, socketName)
		// As a process left it that was killed.
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		l, err := listenLocal(dir)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || info.Mode().Type() != os.ModeSocket {
			t.Errorf("%s: %v, %v", what, info, err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 1 {
			t.Errorf("%s: %v", what, left)
		}
		got := make(chan string, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				got <- err.Error()
				return
			}
			defer c.Close()
			if known, ok := c.(interface{ Principal() security.Principal }); !ok || known.Principal() != security.Local {
				got <- "nobody's connection"
				return
			}
			text, _ := io.ReadAll(c)
			got <- string(text)
		}()
		for _, at := range []string{dir, path} {
			if socketOf(at) != path {
				t.Errorf("%s means %s", at, socketOf(at))
			}
		}
		c, err := dialLocal(context.Background(), dir)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		_, _ = io.WriteString(c, "hello")
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
		if said := <-got; said != "hello" {
			t.Errorf("%s: %q", what, said)
		}
		_ = c.Close()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", path, err)
		}
		if _, err := l.Accept(); err == nil || !strings.Contains(err.Error(), net.ErrClosed.Error()) {
			t.Errorf("%v", err)
		}
	}
}

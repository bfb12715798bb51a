package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := New(slog.New(slog.NewJSONHandler(&out, nil)))
		e := Event{Who: "User:alice", From: "10.0.0.1", What: "login", Why: "wrong \"password\"\n", More: []any{"mechanism", "PLAIN"}}
		for range 100 {
			l.Denied(e)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 5 {
			t.Fatalf("%d lines for 100 events at once, want 5", len(lines))
		}
		var line map[string]any
		if err := json.Unmarshal([]byte(lines[0]), &line); err != nil {
			t.Fatal(err)
		}
		for key, want := range map[string]string{"who": e.Who, "from": e.From, "what": e.What, "why": e.Why, "mechanism": "PLAIN"} {
			if line[key] != want {
				t.Errorf("%s is %v, want %q", key, line[key], want)
			}
		}
		time.Sleep(time.Second)
		out.Reset()
		l.Denied(e)
		if !strings.Contains(out.String(), `"not_logged_before":95`) {
			t.Error(out.String())
		}
		out.Reset()
		l.Denied(Event{Who: "User:bob", What: "login"})
		if out.Len() == 0 {
			t.Error("another user's line is kept back")
		}
	})
}

// Somebody who makes up names can make neither lines nor memory without end.
func TestManyNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := New(slog.New(slog.NewJSONHandler(&out, nil)))
		for i := range maxKinds + 1000 {
			l.Denied(Event{Who: fmt.Sprint(i), What: "login"})
		}
		if n := len(l.byKind); n > maxKinds {
			t.Errorf("%d are remembered", n)
		}
		if n := strings.Count(out.String(), "\n"); n > burst {
			t.Errorf("%d lines", n)
		}
	})
	(*Log)(nil).Denied(Event{})
}

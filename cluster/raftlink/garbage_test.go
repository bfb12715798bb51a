package raftlink_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/link/peertest"
)

// TestGarbageEndsItsSession sends requests that no node of this version sends. Each must end its
// own session and nothing else.
func TestGarbageEndsItsSession(t *testing.T) {
	n := peertest.New()
	b := linkOn(t, n, "b")
	_ = b.Transport("g")
	for name, c := range map[string]struct {
		kind uint8
		body string
	}{
		"without group":             {0, ""},
		"with endless group":        {0, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"},
		"of an unknown kind":        {99, "\x01g"},
		"cut short":                 {0, "\x01g\x01"},
		"snapshot of negative size": {2, "\x01g\x01\xff\xff\xff\xff"},
	} {
		evil := link.New(link.Config{Self: "evil " + name, Dial: n.Dial("evil"), Resolve: func(id string) (string, bool) { return id, true }})
		evil.Start()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if r, err := evil.Request(ctx, "b", c.kind, [][]byte{[]byte(c.body)}); !errors.Is(err, link.ErrBroken) {
			t.Errorf("%s: %+v %v, want a session that ends", name, r, err)
		}
		cancel()
		_ = evil.Close()
	}
	good := linkOn(t, n, "a")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go serve(ctx, b.Transport("g"), accept)
	if err := good.Transport("g").AppendEntries("b", "b", heartbeat(), new(raft.AppendEntriesResponse)); err != nil {
		t.Error(err)
	}
}

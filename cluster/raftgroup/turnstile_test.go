package raftgroup

import (
	"context"
	"testing"
)

// Proposals wait while a leadership is given away, and go on when it stays.
func TestProposalsWaitAtTheTurnstile(t *testing.T) {
	var gate Turnstile
	if !gate.Enter(t.Context()) {
		t.Fatal("nothing holds it")
	}
	open, ok := gate.Hold()
	if !ok || gate.Under() != 1 {
		t.Fatalf("%v, %d under way", ok, gate.Under())
	}
	if _, again := gate.Hold(); again {
		t.Error("it is held twice")
	}
	gate.Leave()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if gate.Enter(ended) {
		t.Error("a proposal was made while it is held")
	}
	entered := make(chan bool)
	go func() { entered <- gate.Enter(t.Context()) }()
	open()
	if !<-entered || gate.Under() != 1 {
		t.Error("it does not go on")
	}
}

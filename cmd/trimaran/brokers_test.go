package main

import (
	"context"
	"net"
	"strings"
	"testing"
)

func TestNoAnswerSaysWhetherANodeIsThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &brokers{list: []broker{{scheme: "tcp", addr: l.Addr().String()}}}
	if text := b.unreachable(context.DeadlineExceeded).Error(); !strings.Contains(text, "A node is there") {
		t.Errorf("of a node that does not answer: %s", text)
	}
	l.Close()
	if text := b.unreachable(context.DeadlineExceeded).Error(); !strings.Contains(text, "Is a node running there?") {
		t.Errorf("of no node: %s", text)
	}
}

// A broker that is gone, or hangs, does not keep a command from asking the next one.
func TestBrokersAreTriedInTurn(t *testing.T) {
	_, addr, _ := oneNode(t)
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	for name, first := range map[string]string{"gone": "127.0.0.1:1", "hanging": hangs.Addr().String()} {
		brokers := []string{"--brokers", first + "," + addr, "--timeout", "10s"}
		command(t, 0, "", append(brokers, "topic", "create", name)...)
		if out, _ := command(t, 0, "", append(brokers, "cluster", "status")...); !strings.Contains(out, name) {
			t.Errorf("%s: status says %q", name, out)
		}
		if name == "hanging" {
			continue // the rest takes as long again each time, and goes the same way
		}
		command(t, 0, "one\n", append(brokers, "produce", name)...)
		if out, _ := command(t, 0, "", append(brokers, "consume", name)...); out != "one\n" {
			t.Errorf("%s: consume gives %q", name, out)
		}
		command(t, 0, "", append(brokers, "consume", name, "--group", name, "--max-messages", "1")...)
		if out, _ := command(t, 0, "", append(brokers, "group", "describe", name)...); !strings.Contains(out, "lag 0") {
			t.Errorf("%s: group describe says %q", name, out)
		}
	}
}

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

package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
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

// With --tls-server-name Metadata names the broker by a name that DNS may not know.
func TestTheNameInTheCertificateIsReachedAtTheBrokersAddress(t *testing.T) {
	s := httptest.NewTLSServer(nil) // its certificate is for example.com
	defer s.Close()
	config := s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.ServerName = "example.com"
	b := &brokers{list: []broker{{scheme: "tls", addr: "127.0.0.1:1"}, {scheme: "tls", addr: s.Listener.Addr().String()}}, tls: config}
	conn, err := b.dial(t.Context(), "tcp", "example.com:1")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.RemoteAddr().String() != s.Listener.Addr().String() {
		t.Errorf("reached %v", conn.RemoteAddr())
	}
}

func TestConsumeDoesNotWaitForEver(t *testing.T) {
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	b := &brokers{list: []broker{{scheme: "tcp", addr: hangs.Addr().String()}}}
	cl, err := b.client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	err = printRecords(t.Context(), cl, "events", map[int32]span{0: {0, 10}}, 50*time.Millisecond, 0, nil, func() error { return nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

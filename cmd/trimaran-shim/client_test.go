package main

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// A client whose login failed may read that before its connection ends, and none other waits.
func TestAFailedLoginIsReadBeforeTheEnd(t *testing.T) {
	for _, c := range []struct {
		denied bool
		leaves time.Duration // when the client closes; 0: it does not
		want   time.Duration
	}{
		{false, 0, 0},
		{true, 0, partingWords},
		{true, partingWords / 4, partingWords / 4},
	} {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			defer there.Close()
			began := time.Now()
			if c.leaves > 0 {
				time.AfterFunc(c.leaves, func() { there.Close() })
			} else {
				go func() { _, _ = io.Copy(io.Discard, there) }()
			}
			client := newClient(here, 1<<20, nil)
			client.denied = c.denied
			client.letGo(context.Background())
			if got := time.Since(began); got != c.want {
				t.Errorf("%+v: the end comes after %v", c, got)
			}
		})
	}
}

// What the gateway says to a login decides whether the client is one of those.
func TestAFailedLoginIsNoticed(t *testing.T) {
	s := &session{client: &client{}, steps: 2}
	r := &request{key: apiSaslAuthenticate}
	for _, c := range []struct {
		answer string
		want   bool
	}{
		{"\x00\x00\x00\x00\x00\x00\x00\x01\x00\x3a\xff\xff\x00\x00\x00\x00", true}, // 58
		{"\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\xff\xff\x00\x00\x00\x01x", false},
	} {
		if s.heard(r, []byte(c.answer)); s.client.denied != c.want {
			t.Errorf("%q: %v", c.answer, s.client.denied)
		}
	}
}

package gateway

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/shim"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

var errCutOffForTest = errors.New("of 3 voters 1 is reached")

// TestAGatewayThatIsCutOffPartsFromItsClients: idle ones and those that wait, what was asked is
// answered first where that is possible, and who comes is sent on, until the gateway belongs to the
// majority again.
func TestAGatewayThatIsCutOffPartsFromItsClients(t *testing.T) {
	f := newFake(t, "events")
	waiting := make(chan struct{}, 2)
	f.await = func(ctx context.Context, p fsm.PartitionID, from fsm.Offset) error {
		waiting <- struct{}{}
		return f.doAwait(ctx, p, from)
	}
	stuck := make(chan struct{})
	f.append = func(ctx context.Context, p fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
		waiting <- struct{}{}
		<-stuck
		return nil, outcome.ErrTimeout
	}
	defer close(stuck)
	g := serve(t, f, nil)
	idle, polling, producing := g.dial(), g.dial(), g.dial()
	idle.do(metadataOf("events"))
	polling.send(encode(7, fetchOf("events", 0, 0, time.Minute, 1, 1000)))
	producing.send(encode(8, produce(-1, "events", 0, "a")))
	<-waiting
	<-waiting
	ws, _, err := g.dialWS(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()

	f.cutOff.Store(&errCutOffForTest)
	idle.closed()
	polling.want(7, fetchOf("events", 0, 0, 0, 0, 0).ResponseKind())
	polling.closed()
	producing.closed()
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("the WebSocket ends with %v", err)
	}
	late := g.dial()
	late.send(encode(1, metadataOf("events")))
	late.closed()
	if _, resp, err := g.dialWS(nil); err == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a WebSocket is opened: %v", err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	if resp, err := http.Get("http://" + g.addr + "/healthz"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("/healthz: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	f.cutOff.Store(nil)
	deadline := time.Now().Add(patience)
	for {
		c := g.dial()
		c.send(encode(1, metadataOf("events")))
		if _, err := c.frame(); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestWhoAskedIsToldWhetherTheGatewayServes: by the answer to the handshake, and then at once when
// it changes. Such a client is neither sent away nor refused, since it may have no other gateway.
func TestWhoAskedIsToldWhetherTheGatewayServes(t *testing.T) {
	f := newFake(t, "events")
	g := serve(t, f, nil)
	dial := func() (*shim.Conn, chan bool) {
		said := make(chan bool, 64)
		d := shim.Dialer{Serving: func(serves bool) { said <- serves }}
		conn, err := d.DialURL(t.Context(), "ws://"+g.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn, said
	}
	until := func(said chan bool, want bool) {
		t.Helper()
		late := time.After(patience)
		for {
			select {
			case got := <-said:
				if got == want {
					return
				}
			case <-late:
				t.Fatalf("never said: %v", want)
			}
		}
	}
	conn, said := dial()
	if !<-said {
		t.Error("at first it does not serve")
	}
	f.cutOff.Store(&errCutOffForTest)
	until(said, false)
	second, saidToo := dial()
	if <-saidToo {
		t.Error("a gateway that is cut off says to a newcomer that it serves")
	}
	for _, c := range []*shim.Conn{conn, second} {
		req := metadataOf("events")
		if err := c.WriteMessage(encode(3, req)); err != nil {
			t.Fatal(err)
		}
		if b, err := c.ReadMessage(); err != nil || len(b) < 8 || b[7] != 3 {
			t.Errorf("the answer of a gateway that is cut off: %x, %v", b, err)
		}
	}
	f.cutOff.Store(nil)
	until(said, true)
	until(saidToo, true)
}

// TestWhoDoesNotAskIsToldNothing: pings carry what the client asked for, and nothing else.
func TestWhoDoesNotAskIsToldNothing(t *testing.T) {
	g := serve(t, newFake(t, "events"), nil)
	ws, resp, err := g.dialWS(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	if got := resp.Header.Values(shim.ServingHeader); got != nil {
		t.Errorf("the handshake says %q", got)
	}
	pinged := make(chan string, 1)
	ws.SetPingHandler(func(data string) error {
		pinged <- data
		return nil
	})
	go func() { _, _, _ = ws.ReadMessage() }()
	if data := <-pinged; data != "" {
		t.Errorf("a ping says %q", data)
	}
}

package shim

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/gorilla/websocket"
)

// Messages that are tried together arrive each whole, in order and once, wherever the connection
// stops taking them.
func TestMessagesThatAreTriedTogetherArriveInOrder(t *testing.T) {
	const each, groups = 5, 400
	read := make(chan struct{})
	got := make(chan []byte, each*groups)
	c := dial(t, gateway(t, func(ws *websocket.Conn, _ *http.Request) {
		<-read
		for {
			_, message, err := ws.ReadMessage()
			if err != nil {
				return
			}
			got <- message
		}
	}))
	var all [][]byte
	full := false // the connection has taken less than all once
	for g := range groups {
		var group [][]byte
		for i := range each {
			n := g*each + i
			group = append(group, kafkaMessage(bytes.Repeat([]byte{byte(n), byte(n >> 8)}, 1+n*7919%9000)))
		}
		all = append(all, group...)
		for len(group) > 0 {
			sent, tried := c.TryMessages(group)
			if g == 0 && (sent != each || tried != Sent) {
				t.Fatalf("%d of the first %d messages were sent, %v", sent, each, tried)
			}
			if group = group[sent:]; len(group) == 0 {
				break
			}
			if !full {
				full = true
				close(read)
			}
			if err := c.WriteMessage(group[0]); err != nil {
				t.Fatal(err)
			}
			group = group[1:]
		}
	}
	if !full {
		t.Fatal("the connection took everything")
	}
	for i, want := range all {
		if message := <-got; !bytes.Equal(message, want) {
			t.Fatalf("message %d has %d bytes, want %d", i, len(message), len(want))
		}
	}
}

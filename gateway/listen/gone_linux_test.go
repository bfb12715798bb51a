package listen

import (
	"net"
	"testing"
	"time"
)

// That a client has closed its side is known while what it sent before is not read.
func TestAClientThatIsGone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	f := newStream(peek(server), 1<<20)
	if _, err := client.Write([]byte{0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8}); err != nil {
		t.Fatal(err)
	}
	if f.Gone() {
		t.Error("the client is there")
	}
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); !f.Gone(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is known of the end of the connection")
		}
	}
	if frame, err := f.ReadFrame(func(int) error { return nil }); err != nil || len(frame) != 8 {
		t.Errorf("what came before its end is read as %q, %v", frame, err)
	}
}

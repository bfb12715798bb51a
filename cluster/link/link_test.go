package link_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/link"
)

// tcpLink starts a link over real sockets; all links of a test share one address book.
func tcpLink(t testing.TB, self string, book map[string]string, h link.Handler) *link.Link {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	book[self] = ln.Addr().String()
	l := start(link.Config{
		Self: self, Listener: ln, Handler: h,
		Resolve: func(id string) (string, bool) { a, ok := book[id]; return a, ok },
	})
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestCallOverTCP(t *testing.T) {
	book := map[string]string{}
	echo := func(_ context.Context, from string, kind uint8, b []byte) []byte {
		return fmt.Appendf(nil, "%s %d %d", from, kind, len(b))
	}
	a := tcpLink(t, "a", book, echo)
	_ = tcpLink(t, "b", book, echo)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, size := range []int{0, 1, 5000, 100_000, 20 << 20} {
		resp, err := a.Call(ctx, "b", 7, []byte("x"), make([]byte, size), []byte("y"))
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("a 7 %d", size+2); string(resp) != want {
			t.Fatalf("got %q, want %q", resp, want)
		}
	}
	from, resp, err := a.CallAddr(ctx, book["b"], 3, []byte("hi"))
	if err != nil || from != "b" || string(resp) != "a 3 2" {
		t.Fatalf("CallAddr: %q %q %v", from, resp, err)
	}
	if _, err := a.Call(ctx, "nobody", 1); !errors.Is(err, link.ErrNotSent) || !errors.Is(err, link.ErrUnknownPeer) {
		t.Fatalf("call to an unknown node: %v", err)
	}
}

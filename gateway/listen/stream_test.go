package listen

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/gateway/session"
)

// A client whose login failed may read that before the connection ends, and none other waits.
func TestAFailedLoginIsReadBeforeTheEnd(t *testing.T) {
	for _, c := range []struct {
		why    error
		leaves time.Duration // when the client closes; 0: it does not
		want   time.Duration
	}{
		{nil, 0, 0},
		{errors.New("another"), 0, 0},
		{session.ErrLogin, 0, partingWords},
		{session.ErrLogin, partingWords / 4, partingWords / 4},
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
			newStream(peek(here), 1<<20).Close(c.why)
			if got := time.Since(began); got != c.want {
				t.Errorf("with %v and a client that leaves after %v the end comes after %v, want %v", c.why, c.leaves, got, c.want)
			}
		})
	}
}

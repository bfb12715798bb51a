package link

import (
	"errors"
	"fmt"
	"net"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// ErrUnproven: the other side has not shown that it may have the identity that it says it has.
var ErrUnproven = errors.New("that identity is not proven")

// Secured is a connection, from Config.Listener or Config.Dial, that knows who may be at its other
// end. Others are taken for whom they say they are.
type Secured interface {
	net.Conn
	// Prove gives an error unless the other side may have that identity. It is asked once, after
	// the hello and before anything that is said there counts.
	Prove(identity string) error
	// Settled gives the connection to be used after that.
	Settled() net.Conn
}

// proven gives the connection to be used after the hello of that identity.
func proven(nc net.Conn, identity string) (net.Conn, error) {
	s, ok := nc.(Secured)
	if !ok {
		return nc, nil
	}
	if err := s.Prove(identity); err != nil {
		return nc, fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	return s.Settled(), nil
}

// writeParts sends parts one after another, in one call where the connection can.
func writeParts(nc net.Conn, parts net.Buffers) (int64, error) {
	if gathers, ok := nc.(interface {
		WriteParts(parts net.Buffers) (int64, error)
	}); ok {
		return gathers.WriteParts(parts)
	}
	return parts.WriteTo(nc)
}

// strangers are the connections that have not said who they are. There are at most maxHandshakes,
// and the oldest goes for a new one: who says nothing keeps nobody out.
type strangers struct {
	mu  locks.Mutex[strangers] // guards all; nothing is called under it
	all []net.Conn             // oldest first
}

// enter makes nc one of them, and gives the one that has to go for it; nil: none.
func (s *strangers) enter(nc net.Conn) (oldest net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) >= maxHandshakes {
		oldest = s.all[0]
		s.all = append(s.all[:0], s.all[1:]...)
	}
	s.all = append(s.all, nc)
	return oldest
}

func (s *strangers) leave(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range s.all {
		if c == nc {
			s.all = append(s.all[:i], s.all[i+1:]...)
			return
		}
	}
}

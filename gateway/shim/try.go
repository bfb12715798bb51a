package shim

import "errors"

// Tried is what became of a message that was given to TryMessage.
type Tried int

const (
	NotSent  Tried = iota // nothing of it was sent
	Sent                  // all of it was
	HalfSent              // a part was: nothing else is sent before WriteMessage has sent the rest
)

var errBegun = errors.New("shim: another message is half sent")

// TryMessage sends a whole Kafka message, its size prefix included, as far as the connection takes
// it without waiting. After HalfSent WriteMessage must be called with the same slice, and sends
// what is left. Over TLS, and for large messages, it is always NotSent; why something cannot be
// sent is told by WriteMessage.
func (c *Conn) TryMessage(message []byte) Tried {
	if size, err := c.messageSize(message); c.turns == nil || err != nil || size != len(message) || size == 0 {
		return NotSent
	}
	if !c.writeMu.TryLock() {
		return NotSent
	}
	defer c.writeMu.Unlock()
	if c.begun != nil || len(c.unsent) > 0 || c.writable() != nil {
		return NotSent
	}
	left, begun := tryMasked(c.turns, message)
	switch {
	case !begun:
		return NotSent
	case left == nil:
		return Sent
	}
	c.begun, c.left = message, left
	return HalfSent
}

// Ended is closed behind the last message; ReadMessage then says why nothing more comes.
func (c *Conn) Ended() <-chan struct{} { return c.readDone }

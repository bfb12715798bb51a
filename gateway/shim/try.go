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
	_, tried := c.TryMessages([][]byte{message})
	return tried
}

// TryMessages is TryMessage for several, in one call to the system, which takes at most scratchSize. sent of them were sent whole, and tried is what became of the one behind these: Sent
// if there is none. Nothing behind that one was sent.
func (c *Conn) TryMessages(messages [][]byte) (sent int, tried Tried) {
	whole := 0
	for ; whole < len(messages); whole++ {
		message := messages[whole]
		if size, err := c.messageSize(message); err != nil || size != len(message) || size == 0 {
			break
		}
	}
	if c.turns == nil || whole == 0 || !c.writeMu.TryLock() {
		return 0, NotSent
	}
	defer c.writeMu.Unlock()
	if c.begun != nil || len(c.unsent) > 0 || c.writable() != nil {
		return 0, NotSent
	}
	sent, left := tryMasked(c.turns, messages[:whole])
	switch {
	case left != nil:
		c.begun, c.left = messages[sent], left
		return sent, HalfSent
	case sent < len(messages):
		return sent, NotSent
	}
	return sent, Sent
}

// Ended is closed behind the last message; ReadMessage then says why nothing more comes.
func (c *Conn) Ended() <-chan struct{} { return c.readDone }

package link

// Observer is told what becomes of sessions with other nodes, and takes their beacons. No call may
// block. Accepted and Forgotten come under locks of the link, so they may not call it.
type Observer interface {
	// Accepted: a session from another node begins, and replaces the one before it. Whoever hears
	// of it hears of it before the other side can send anything on it, and in the order of
	// sessions.
	Accepted(in *Inbound)
	// Ended: a session from another node is over.
	Ended(in *Inbound)
	// Lost: a session to that node is over.
	Lost(identity string)
	// Forgotten: that node has no session any more and is not remembered.
	Forgotten(identity string)
	// Changed: something about some node may be different now.
	Changed()
	// Beacon takes a beacon of the other side, on the reading goroutine. An error ends its session.
	Beacon(in *Inbound, seq uint64, body []byte) error
}

// nobody observes.
type nobody struct{}

func (nobody) Accepted(*Inbound)                     {}
func (nobody) Ended(*Inbound)                        {}
func (nobody) Lost(string)                           {}
func (nobody) Forgotten(string)                      {}
func (nobody) Changed()                              {}
func (nobody) Beacon(*Inbound, uint64, []byte) error { return nil }

package listen

import (
	"bufio"
	"net"
	"time"
)

// gatherFrom is the size of a frame from which its parts go to the connection as they are, in
// bytes; smaller ones are put together, and may wait for those behind them.
const gatherFrom = 4 << 10

// output is the sending half of a connection. One goroutine uses it at a time.
type output struct {
	conn net.Conn
	// tcp is what is below conn where nothing but the kernel is: it takes many parts in one call.
	tcp *net.TCPConn
	out *bufio.Writer
}

func newOutput(c net.Conn) output {
	return output{conn: c, tcp: plainTCP(c), out: bufio.NewWriterSize(pieces{c}, gatherFrom)}
}

// plainTCP gives the TCP connection that bytes written to c go to unchanged; nil if there is none.
func plainTCP(c net.Conn) *net.TCPConn {
	switch c := c.(type) {
	case *net.TCPConn:
		return c
	case *conn:
		return plainTCP(c.Conn)
	case *peeked:
		return plainTCP(c.Conn)
	}
	return nil
}

// write sends a frame in parts, or keeps it if it is small and more follow at once. What is sent
// ends with a frame, so that something else may follow that does not come through here. Nothing of
// parts is used afterwards.
func (o *output) write(more bool, parts ...[]byte) error {
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	if o.tcp != nil && size >= gatherFrom {
		if err := o.flush(); err != nil {
			return err
		}
		return o.gather(parts)
	}
	if size > o.out.Available() {
		if err := o.flush(); err != nil {
			return err
		}
	}
	whole := size <= o.out.Available()
	for _, part := range parts {
		if _, err := o.out.Write(part); err != nil {
			return err
		}
	}
	if more && whole {
		return nil
	}
	return o.flush()
}

func (o *output) flush() error { return o.out.Flush() }

// gather writes parts where they are, in pieces, each of which the other side has to take in time.
func (o *output) gather(parts [][]byte) error {
	piece := make(net.Buffers, 0, len(parts))
	var part []byte // what is left of the one that comes next; parts are the caller's
	for {
		piece = piece[:0]
		for room := writePiece; room > 0; {
			if len(part) == 0 {
				if len(parts) == 0 {
					break
				}
				part, parts = parts[0], parts[1:]
				continue
			}
			n := min(room, len(part))
			piece = append(piece, part[:n:n])
			room, part = room-n, part[n:]
		}
		if len(piece) == 0 {
			return nil
		}
		if err := o.conn.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
			return err
		}
		now := piece // WriteTo moves it
		if _, err := now.WriteTo(o.tcp); err != nil {
			return err
		}
	}
}

// pieces writes in pieces, each of which the other side has to take in time.
type pieces struct{ net.Conn }

func (p pieces) Write(b []byte) (int, error) {
	written := 0
	for {
		piece := b[written:min(len(b), written+writePiece)]
		if err := p.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
			return written, err
		}
		n, err := p.Conn.Write(piece)
		written += n
		if err != nil || written == len(b) {
			return written, err
		}
	}
}

package listen

import (
	"fmt"
	"io"
	"time"

	"github.com/trimaran-io/trimaran/kafkaproto"
)

// bound is what a connection may send that has not logged in. The connection's reader sets and
// reads it.
type bound struct {
	most  int       // bytes of a frame; 0: as configured
	until time.Time // when nothing more is read; zero: never
	raw   bool      // the next frame is a message of a SASL mechanism's, of any size from 0
}

// Bound has at most so many bytes read as one frame, and nothing at all after that time, until it
// is called again; 0 and a zero time are no bounds. raw says that frames are no requests but
// messages of a SASL mechanism's. It must be called by who reads, or before.
func (b *bound) Bound(most int, until time.Time, raw bool) {
	b.most, b.until, b.raw = most, until, raw
}

func (b *bound) atMost(deadline time.Time) time.Time {
	if !b.until.IsZero() && deadline.After(b.until) {
		return b.until
	}
	return deadline
}

// check is kafkaproto.CheckFrameSize within the bound.
func (b *bound) check(size int32, most int) error {
	if b.most > 0 {
		most = min(most, b.most)
	}
	if b.raw {
		if size < 0 || int(size) > most {
			return fmt.Errorf("%w: %d bytes of a SASL message, at most %d", kafkaproto.ErrFrameSize, size, most)
		}
		return nil
	}
	return kafkaproto.CheckFrameSize(size, most)
}

// readToken reads a message of a SASL mechanism's, whose memory grows with what comes.
func readToken(in io.Reader, size int) ([]byte, error) {
	message, err := io.ReadAll(io.LimitReader(in, int64(size)))
	if err == nil && len(message) < size {
		err = io.ErrUnexpectedEOF
	}
	return message, err
}

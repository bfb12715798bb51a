package listen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"github.com/trimaran-io/trimaran/gateway/internal/frames"
	"github.com/trimaran-io/trimaran/gateway/session"
	"github.com/trimaran-io/trimaran/gateway/shim"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

const (
	// pingEvery is below what package shim waits for a sign of life, since this
	// side may be busy and not answer the shim's own pings.
	// Nobody has to answer: a client that expects nothing may not be reading, and
	// then does not see them.
	pingEvery    = 2 * time.Second
	controlGrace = time.Second
)

var errDisagrees = fmt.Errorf("%w: the prefix disagrees with the WebSocket message", kafkaproto.ErrFrameSize)

// webSocket is a session.Framer over a WebSocket: each Kafka message with its size prefix
// is exactly one binary message, in both directions.
type webSocket struct {
	readLimits
	output
	turns   *frames.Turns // answers are framed here; gorilla does the rest
	header  []byte        // of the frame that is written
	parts   [][]byte      // it and what is behind it
	ws      *websocket.Conn
	max     int
	serving *serving // what pings tell of; nil: they tell nothing

	quiet sync.Once
	done  chan struct{} // closed: no more pings
}

func newWebSocket(ws *websocket.Conn, turns *frames.Turns, max int) *webSocket {
	f := &webSocket{
		readLimits: readLimits{conn: ws.NetConn()}, output: newOutput(turns.Conn), turns: turns, ws: ws, max: max, done: make(chan struct{}),
	}
	ws.SetReadLimit(int64(max) + 4)
	return f
}

// ping runs until close and shows the client that this side is there, and what it says of itself.
func (f *webSocket) ping() {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for due := f.serving != nil; ; due = true {
		var word []byte
		var changed <-chan struct{}
		if f.serving != nil {
			var why error
			_, changed, why = f.serving.now()
			word = []byte(servingWord(why))
		}
		if due {
			err := f.ws.WriteControl(websocket.PingMessage, word, time.Now().Add(controlGrace))
			var timeout net.Error
			if err != nil && !(errors.As(err, &timeout) && timeout.Timeout()) {
				return
			}
		}
		select {
		case <-f.done:
			return
		case <-tick.C:
		case <-changed:
		}
	}
}

func (f *webSocket) ReadFrame(reserve func(int) error) ([]byte, error) {
	f.within(IdleTimeout)
	kind, message, err := f.ws.NextReader()
	if err != nil {
		return nil, f.readError(err, session.ErrIdle)
	}
	if kind != websocket.BinaryMessage {
		return nil, session.ErrText
	}
	f.within(BeginTimeout)
	var prefix [4]byte
	if _, err := io.ReadFull(message, prefix[:]); err != nil {
		return nil, f.readError(messageEnded(err), session.ErrSlow)
	}
	size := int32(binary.BigEndian.Uint32(prefix[:]))
	if err := f.check(size, f.max); err != nil {
		return nil, err
	}
	var frame []byte
	if f.raw {
		frame, err = readToken(f.arriving(message, int(size), reserve), int(size))
	} else {
		in := f.arriving(io.MultiReader(bytes.NewReader(prefix[:]), message), int(size), reserve)
		frame, err = kafkaproto.ReadFrame(in, f.max)
	}
	if err != nil {
		return nil, f.readError(messageEnded(err), session.ErrSlow)
	}
	if n, err := message.Read(prefix[:1]); n > 0 || err == nil {
		return nil, errDisagrees
	} else if !errors.Is(err, io.EOF) {
		return nil, f.readError(err, session.ErrSlow)
	}
	return frame, nil
}

// messageEnded: the message was shorter than its prefix says. A connection that
// breaks inside a message is another error of gorilla's.
func messageEnded(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) && !isCloseError(err) {
		return errDisagrees
	}
	return err
}

func isCloseError(err error) bool {
	var closed *websocket.CloseError
	return errors.As(err, &closed)
}

// readError makes an orderly goodbye, and a connection that ends without one
// between two messages, the end of the stream.
func (f *webSocket) readError(err, late error) error {
	if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseNoStatusReceived, websocket.CloseAbnormalClosure) {
		return io.EOF
	}
	return f.err(err, late)
}

// Write implements session.Framer: an answer is a message of one frame, which every client can
// read.
func (f *webSocket) Write(parts [][]byte, more bool) error {
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	f.header = frames.AppendHeader(f.header[:0], size, nil)
	f.parts = append(append(f.parts[:0], f.header), parts...)
	defer clear(f.parts)
	return f.answer(func() error { return f.write(more, f.parts...) })
}

// Flush implements session.Framer.
func (f *webSocket) Flush() error {
	if f.out.Buffered() == 0 {
		return nil
	}
	return f.answer(f.flush)
}

// answer has write send what is no control frame, in its turn.
func (f *webSocket) answer(write func() error) error {
	err := f.turns.Send(nil, write)
	if errors.Is(err, frames.ErrOver) {
		return syscall.EPIPE // as over TCP when the other side has closed
	}
	return err
}

func (f *webSocket) Close(why error) {
	f.quiet.Do(func() { close(f.done) })
	code, reason := closeCode(why)
	_ = f.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(controlGrace))
	closeGently(f.readLimits.conn)
}

// closeCode says in WebSocket's words (RFC 6455, section 7.4.1) why a connection
// ends. The reason is ours, nothing of it comes from the client.
func closeCode(why error) (code int, reason string) {
	switch {
	case why == nil:
		return websocket.CloseNormalClosure, ""
	case errors.Is(why, session.ErrAllAnswered):
		return websocket.CloseGoingAway, shim.GoodbyeReason
	case errors.Is(why, session.ErrServerLeaves), errors.Is(why, session.ErrInterrupted):
		return websocket.CloseGoingAway, "the node takes no more requests"
	case errors.Is(why, session.ErrText):
		return websocket.CloseUnsupportedData, "Kafka messages are binary"
	case errors.Is(why, websocket.ErrReadLimit):
		return websocket.CloseMessageTooBig, "message too big"
	case errors.Is(why, errDisagrees):
		return websocket.CloseProtocolError, "size prefix disagrees with the message"
	case errors.Is(why, kafkaproto.ErrFrameSize):
		return websocket.CloseMessageTooBig, "size out of bounds"
	case errors.Is(why, kafkaproto.ErrMalformed), errors.Is(why, kafkaproto.ErrNotServed):
		return websocket.CloseProtocolError, "request not understood"
	case errors.Is(why, session.ErrLogin):
		return websocket.ClosePolicyViolation, "not logged in"
	case errors.Is(why, session.ErrAcksZero):
		return websocket.ClosePolicyViolation, "a produce with acks=0 failed"
	case errors.Is(why, session.ErrCrowded):
		return websocket.CloseTryAgainLater, "no memory for requests"
	case errors.Is(why, session.ErrIdle), errors.Is(why, session.ErrSlow):
		return websocket.ClosePolicyViolation, "idle or too slow"
	}
	return websocket.CloseInternalServerErr, "internal error"
}

package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/gateway/session"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// request is one request from its frame to its answer.
type request struct {
	conn   *connection
	reply  *session.Reply
	header kafkaproto.Header
	body   kmsg.Request
	began  time.Time
	name   string // of the API, for metrics
	code   int16  // the first error code in the answer
	// before are the answers that background waits for: what the request has to see.
	before []<-chan struct{}
	caller caller // who asks; set where rights are judged
	ends   error  // why the connection ends after the answer; the reader sets and reads it

	once sync.Once
}

// serve begins to work on a request. An error says that the connection ends at
// this request; the reply has it then, in its turn.
//
// An API or version that is not served closes the connection, as 0.8 and today's
// Kafka do: nobody knows what an answer would look like. ApiVersions is the
// exception, since it is how a client finds out (KIP-35, KIP-511).
func (r *request) serve(frame []byte) (err error) {
	r.began, r.name = time.Now(), "unknown"
	defer func() {
		if v := recover(); v != nil {
			err = r.reply.Panicked(v)
			r.hangUp(err)
		}
	}()
	header, body, err := kafkaproto.ParseHeader(frame)
	r.header = header
	if api, ok := kafkaproto.Lookup(header.Key); ok {
		r.name = api.Name
		if header.Key == int16(kmsg.ApiVersions) && !api.Serves(header.Version) && len(frame) >= 8 {
			if err := r.conn.login.Admit(header.Key); err != nil {
				return r.refuseStranger(err)
			}
			r.answerUnknownApiVersions()
			return nil
		}
	}
	if err != nil {
		r.hangUp(err)
		return err
	}
	if err := r.conn.login.Admit(header.Key); err != nil {
		return r.refuseStranger(err)
	}
	api := apis[kmsg.Key(header.Key)]
	r.before = r.conn.order.Admit(r.reply.Done(), api.effect)
	if limit := ownLimit(header.Key); header.Key >= StatusKey && len(frame) > limit {
		err := fmt.Errorf("%w: %d bytes for API key %d, at most %d", kafkaproto.ErrFrameSize, len(frame), header.Key, limit)
		r.hangUp(err)
		return err
	}
	if api.own != nil {
		r.name = apiName(kmsg.Key(header.Key))
		if !r.admitCaller() {
			return nil
		}
		return api.own(r, body)
	}
	if r.body, err = kafkaproto.DecodeRequest(header, body, r.admit); err != nil {
		if errors.Is(err, kafkaproto.ErrNotServed) {
			err = notServed(header, err)
		}
		r.hangUp(err)
		return err
	}
	if api.handle == nil {
		err := fmt.Errorf("%w: no handler for %s", kafkaproto.ErrNotServed, r.name)
		r.hangUp(err)
		return err
	}
	if r.admitCaller() {
		api.handle(r)
	}
	return r.ends
}

// elementCost is about what an array element or a tagged field of a request takes in
// memory, in bytes; in the frame it may be two.
const elementCost = 128

// maxOwnRequest bounds requests of the APIs that are Trimaran's own, in bytes.
const maxOwnRequest = 64 << 10

// ownLimit is maxOwnRequest but for what carries batches, which is bounded as Produce is.
func ownLimit(key int16) int {
	if key == BackupKey {
		return math.MaxInt
	}
	return maxOwnRequest
}

// admit counts what a request takes when it is decoded, before it is: its elements, and its
// strings, which are copied. Record sets are not.
func (r *request) admit(elements int) error {
	cost := int64(elements) * elementCost
	if r.header.Key != int16(kmsg.Produce) {
		cost += int64(r.reply.Size())
	}
	return r.reply.Charge(cost)
}

// notServed tells an operator who reads the log what a client wanted.
func notServed(h kafkaproto.Header, err error) error {
	return fmt.Errorf("%w, from client %s", err, listen.Shown(h.ClientID))
}

// background runs the rest of a handler beside the reader, when what it has to see is there.
func (r *request) background(work func()) {
	before := r.before
	r.conn.server.listener.Go(func() {
		defer func() {
			if v := recover(); v != nil {
				r.hangUp(r.reply.Panicked(v))
			}
		}()
		for _, done := range before {
			<-done
		}
		work()
	})
}

// note keeps the first error of the answer for the metrics, and gives it back.
func (r *request) note(code int16) int16 {
	if r.code == 0 {
		r.code = code
	}
	return code
}

// fail turns an error into the code for this request's version, and notes it.
func (r *request) fail(err error) int16 {
	return r.note(codeOf(err, kmsg.Key(r.header.Key), r.header.Version))
}

// answer sends the response in its turn.
func (r *request) answer(response kmsg.Response) { r.answerSized(response, 256) }

// answerSized is answer for a response of about so many bytes.
func (r *request) answerSized(response kmsg.Response, size int) {
	frame := make([]byte, 4, 16+size)
	frame = kafkaproto.AppendResponseHeader(frame, r.header)
	frame = response.AppendTo(frame)
	r.answerFrame(frame)
}

// answerFrame sends a frame that is complete but for its size.
func (r *request) answerFrame(frame []byte) {
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	r.answerParts([][]byte{frame})
}

// answerParts sends a frame that is complete and comes in parts.
func (r *request) answerParts(parts [][]byte) { r.complete(parts, nil) }

// silence completes a request that gets no answer.
func (r *request) silence() { r.complete(nil, nil) }

// hangUp closes the connection in place of an answer.
func (r *request) hangUp(why error) { r.complete(nil, why) }

func (r *request) complete(frame [][]byte, why error) {
	r.once.Do(func() {
		r.conn.server.metrics.request(r, why != nil)
		r.reply.Complete(frame, why)
	})
}

// errorName gives Kafka's name of an error code, for metrics.
func errorName(code int16) string {
	if code == 0 {
		return "NONE"
	}
	if e := kerr.TypedErrorForCode(code); e != nil {
		return e.Message
	}
	return strconv.Itoa(int(code))
}

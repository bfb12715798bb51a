package harness

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Ask sends a request of any version in kmsg's structures and reads its answer. After an error the
// connection is of no more use: the error is the connection's, or says what is wrong with the
// answer.
func (w *Wire) Ask(req kmsg.Request) (kmsg.Response, error) {
	w.next++
	format := kmsg.NewRequestFormatter(kmsg.FormatterClientID(w.clientID()))
	body, err := w.exchange(format.AppendRequest(nil, req, w.next), w.next)
	if err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	if resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions) {
		if len(body) == 0 || body[0] != 0 {
			return nil, fmt.Errorf("the answer to %s has tags in its header: %x", kmsg.NameForKey(req.Key()), body[:min(len(body), 16)])
		}
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("the answer to %s cannot be read: %w", kmsg.NameForKey(req.Key()), err)
	}
	return resp, nil
}

// AskWithin is Ask with a limit on all of it.
func (w *Wire) AskWithin(req kmsg.Request, within time.Duration) (kmsg.Response, error) {
	if err := w.Conn.SetDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	return w.Ask(req)
}

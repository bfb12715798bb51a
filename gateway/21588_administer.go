package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// Administer, version 0: Trimaran's own, for `trimaran node` and for a topic's replication factor,
// and like Status not listed by ApiVersions.
//
// The request has header version 1 and the JSON of admin.Request. The response is as that of
// Status, with the JSON of admin.Answer, whose error is empty if what was asked for is in the
// catalog. What follows from it is seen in Status.

// AdministerKey is the API key of Administer.
const AdministerKey = StatusKey + 2

const (
	administerTimeout = 20 * time.Second
	maxAdminRequest   = 4 << 10
)

// serveAdminister begins to answer. An error ends the connection.
func (r *request) serveAdminister(body []byte) error {
	var asked admin.Request
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if r.header.Version != 0 || len(body) > maxAdminRequest || d.Decode(&asked) != nil || d.More() {
		err := fmt.Errorf("%w: Administer version %d with %d bytes", kafkaproto.ErrNotServed, r.header.Version, len(body))
		r.hangUp(err)
		return err
	}
	r.background(func() {
		ctx, cancel := context.WithTimeout(r.reply.Open(), administerTimeout)
		defer cancel()
		var answer admin.Answer
		if err := r.conn.server.operations.Administer(ctx, asked); err != nil {
			answer.Error = err.Error()
			switch outcome.Code(err) {
			case outcome.ErrNoLeader, outcome.ErrNotLeader, outcome.ErrUnknownFate, outcome.ErrTimeout, outcome.ErrShuttingDown:
				answer.Retriable = true
			}
		}
		r.answerJSON(AdministerKey, answer, nil)
	})
	return nil
}

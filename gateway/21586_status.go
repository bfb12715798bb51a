package gateway

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/security/acl"
)

// Status, version 0: Trimaran's own, for its command line. ApiVersions does not
// list it, so that no client takes it for one of Kafka's; the number ("TR" in
// ASCII) is far from Kafka's.
//
// The request has header version 1 and no body. The response is an error code
// (int16) and, with its length (int32), the JSON of admin.Status; the JSON is empty
// when the code is not 0. What does not come within statusTimeout is an error.

// StatusKey is the API key of Status.
const StatusKey = 0x5452

const statusTimeout = 10 * time.Second

// Operations is what an operator asks the cluster, with the APIs that are Trimaran's own.
type Operations interface {
	// Status is what `trimaran cluster status` shows.
	Status(ctx context.Context) (*admin.Status, error)
	// CheckReplicas compares what the partition's replicas have on disk from offset
	// from on, or from the log start if that is above, some tens of megabytes of it.
	CheckReplicas(ctx context.Context, p fsm.PartitionID, from fsm.Offset) (*admin.PartitionCheck, error)
	// Administer returns when what an operator asks for is in the catalog.
	Administer(ctx context.Context, request admin.Request) error
}

// serveStatus begins to answer. An error ends the connection.
func (r *request) serveStatus(body []byte) error {
	if r.header.Version != 0 || len(body) > 0 {
		err := fmt.Errorf("%w: Status version %d with %d bytes", kafkaproto.ErrNotServed, r.header.Version, len(body))
		r.hangUp(err)
		return err
	}
	whole := r.caller.everything() || r.mayInstead()
	if !whole && !r.seesAnyTopic() {
		r.answerJSON(StatusKey, nil, errClusterDenied)
		return nil
	}
	r.background(func() {
		ctx, cancel := context.WithTimeout(r.reply.Open(), statusTimeout)
		defer cancel()
		status, err := r.conn.server.operations.Status(ctx)
		if err == nil && !whole {
			status = r.topicsOf(status)
		}
		r.answerJSON(StatusKey, status, err)
	})
	return nil
}

// seesAnyTopic says whether there is a topic that the caller may describe.
func (r *request) seesAnyTopic() bool {
	for _, topic := range r.conn.server.catalog.Topics().All() {
		if r.seesTopic(topic.Name) {
			return true
		}
	}
	return r.may(r.needs().instead, acl.Cluster, acl.ClusterName)
}

// topicsOf is what of a status is for who may describe topics and not the cluster.
func (r *request) topicsOf(status *admin.Status) *admin.Status {
	part := *status
	part.CatalogVoters, part.GroupShards = nil, nil
	part.Nodes, part.Topics = slices.Clone(status.Nodes), nil
	for i := range part.Nodes {
		part.Nodes[i].PeerAddress, part.Nodes[i].ClientAddress = "", ""
		part.Nodes[i].Backup = nil
	}
	for _, topic := range status.Topics {
		if r.seesTopic(topic.Name) {
			part.Topics = append(part.Topics, topic)
		}
	}
	return &part
}

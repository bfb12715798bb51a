package calls

import "github.com/trimaran-io/trimaran/fsm"

// CreateTopicRequest has the catalog's leader place and create a topic.
type CreateTopicRequest struct {
	Spec         fsm.TopicSpec `json:"spec"`
	ID           fsm.TopicID   `json:"id"` // minted by the asking node, so that asking twice creates once
	ValidateOnly bool          `json:"validate_only,omitempty"`
}

var createTopicCall = Call[CreateTopicRequest, CatalogReply]{request: strictJSON[CreateTopicRequest](), answer: catalogReply()}

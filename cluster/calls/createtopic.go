package calls

import "github.com/trimaran-io/trimaran/fsm"

// CreateTopicRequest has the catalog's leader place and create a topic.
type CreateTopicRequest struct {
	Spec fsm.TopicSpec `json:"spec"`
	// minted by the asking node, so that asking twice creates once
	ID           fsm.TopicID `json:"id"`
	ValidateOnly bool        `json:"validate_only,omitempty"`
}

var createTopicCall = Call[CreateTopicRequest, CatalogReply]{request: strictJSON[CreateTopicRequest](), answer: catalogReply()}

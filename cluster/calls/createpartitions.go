package calls

import "github.com/trimaran-io/trimaran/fsm"

// CreatePartitionsRequest has the catalog's leader place partitions and add them to a topic.
type CreatePartitionsRequest struct {
	Topic fsm.TopicID `json:"topic"`
	Count int         `json:"count"` // in all, afterwards
	// that the asking node knows of: asking twice creates once
	From         int  `json:"from"`
	ValidateOnly bool `json:"validate_only,omitempty"`
}

var createPartitionsCall = Call[CreatePartitionsRequest, CatalogReply]{
	request: strictJSON[CreatePartitionsRequest](), answer: catalogReply(),
}

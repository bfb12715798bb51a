package groups

// Bounds on what is in a command and in a snapshot, in bytes; what is beyond is malformed. Whoever
// makes commands refuses or cuts first.
const (
	// MaxGroupID is the longest group id; a client with a longer one gets INVALID_GROUP_ID.
	MaxGroupID = 1024
	// MaxInstanceID is the longest group.instance.id; a client with a longer one gets
	// INVALID_REQUEST. Kafka's clients allow 249.
	MaxInstanceID = 1024
	// MaxName is how long the name of a protocol, a protocol's type, a client's id or its host may
	// be. Clients' ids are cut, the others refused with INVALID_REQUEST.
	MaxName = 1024
	// MaxMemberID leaves room for a client's or instance's id and a UUID.
	MaxMemberID = MaxName + 64
	// MaxTopic is the longest topic name (Kafka's Topic.MAX_NAME_LENGTH).
	MaxTopic = 249
	// MaxMetadata bounds an offset's metadata, whatever offset.metadata.max.bytes says.
	MaxMetadata = 1 << 20
)

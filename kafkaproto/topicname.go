package kafkaproto

import (
	"fmt"
	"slices"
)

// MaxTopicName is the longest topic name in bytes: a folder named after topic
// and partition must fit in 255 (Kafka's Topic.MAX_NAME_LENGTH).
const MaxTopicName = 249

// CheckTopicName applies Kafka's rules (org.apache.kafka.common.internals.Topic):
// 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-', and neither "." nor "..". The
// error is ErrTopicName and quotes nothing of a name that may be hostile.
func CheckTopicName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: empty", ErrTopicName)
	case name == "." || name == "..":
		return fmt.Errorf("%w: %q", ErrTopicName, name)
	case len(name) > MaxTopicName:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTopicName, len(name), MaxTopicName)
	}
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-') {
			return fmt.Errorf("%w: byte %d is 0x%02x, allowed are letters, digits, '.', '_' and '-'", ErrTopicName, i, c)
		}
	}
	return nil
}

// internalTopics are those that a Kafka broker makes for itself
// (org.apache.kafka.common.internals.Topic). Clients hide them, refuse to write to them
// or read them as what they are in Kafka.
var internalTopics = []string{"__cluster_metadata", "__consumer_offsets", "__share_group_state", "__transaction_state"}

// CheckNewTopicName is CheckTopicName for a topic that is to be created, which may not
// have the name of one of Kafka's own topics either: here these do not exist.
func CheckNewTopicName(name string) error {
	if err := CheckTopicName(name); err != nil {
		return err
	}
	if slices.Contains(internalTopics, name) {
		return fmt.Errorf("%w: %s is a topic of Kafka's own, which does not exist here", ErrTopicName, name)
	}
	return nil
}

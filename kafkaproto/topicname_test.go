package kafkaproto

import (
	"errors"
	"strings"
	"testing"
)

func TestTopicNames(t *testing.T) {
	for _, good := range []string{"a", "Z9", "a.b_c-d", "...", "-", "__consumer_offsets", strings.Repeat("x", 249)} {
		if err := CheckTopicName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a b", "a/b", "../x", "ä", "a\x00", "a\n", "a:b", "\xff", strings.Repeat("x", 250)} {
		if err := CheckTopicName(bad); !errors.Is(err, ErrTopicName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestKafkasOwnTopicsAreNotCreated(t *testing.T) {
	for _, name := range []string{"__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata", "no topic"} {
		if err := CheckNewTopicName(name); !errors.Is(err, ErrTopicName) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"events", "__events", "consumer_offsets", "__consumer_offsets2"} {
		if err := CheckNewTopicName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

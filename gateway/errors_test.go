package gateway

import (
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// listed are all conditions of package outcome.
func listed() []outcome.Error {
	var all []outcome.Error
	for e := outcome.Error(1); e.Error() != outcome.Error(0).Error(); e++ {
		all = append(all, e)
	}
	return all
}

// Every condition has a code of its own choosing: UNKNOWN_SERVER_ERROR only where
// that was decided, not where a new condition was forgotten.
func TestEveryConditionHasACode(t *testing.T) {
	unknown := map[outcome.Error]bool{outcome.ErrUnknown: true, outcome.ErrNodeConflict: true, outcome.ErrClusterMismatch: true}
	for _, e := range listed() {
		wrapped := fmt.Errorf("while trying: %w", e)
		got := kafkaError(wrapped)
		if (got == kerr.UnknownServerError) != unknown[e] {
			t.Errorf("%d %v: %v", e, e, got)
		}
	}
	for _, e := range []error{
		kafkaproto.ErrCorrupt, kafkaproto.ErrTooLarge, kafkaproto.ErrUnsupportedCompression, kafkaproto.ErrUnknownMagic,
		kafkaproto.ErrInvalidTimestamp, kafkaproto.ErrTopicName, errInvalidRequest, errFetchSize, errTopicComing,
	} {
		if got := kafkaError(fmt.Errorf("while trying: %w", e)); got == kerr.UnknownServerError {
			t.Errorf("%v: %v", e, got)
		}
	}
	if got := codeOf(errors.New("anything"), kmsg.Produce, 0); got != -1 {
		t.Errorf("an error of nobody's list: %d", got)
	}
}

// The old APIs in version 0 say only what a client of 0.8 knows; retriable stays
// retriable, and what a produce must not try again blindly stays that.
func TestVersion0KnowsOnlyOldCodes(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.Fetch, kmsg.ListOffsets, kmsg.Metadata} {
		for _, e := range listed() {
			code := codeOf(e, key, 0)
			if code < -1 || code > 12 && code != 17 {
				t.Errorf("%s: %v is code %d", key.Name(), e, code)
			}
			if key != kmsg.Metadata && outcome.NotAppended(e) && code != kerr.NotLeaderForPartition.Code {
				t.Errorf("%s: %v is code %d: nothing happened, so the client may try again", key.Name(), e, code)
			}
		}
	}
	for err, want := range map[error]int16{
		outcome.ErrUnknownFate: 7, outcome.ErrTimeout: 7, outcome.ErrCorruptMessage: 2, outcome.ErrMessageTooLarge: 10,
		kafkaproto.ErrUnsupportedCompression: 2, kafkaproto.ErrInvalidTimestamp: 2, outcome.ErrUnknownTopicOrPartition: 3,
	} {
		if got := codeOf(err, kmsg.Produce, 0); got != want {
			t.Errorf("produce: %v is code %d, want %d", err, got, want)
		}
	}
}

// Java's clients end at a code that they do not look for, in any version. What is here is what they
// take in answer to a partition: consumers for a reason to look for the leader anew, or for what it
// says (FetchCollector.handleInitializeErrors), and the admin client likewise.
func TestClientsTryAgainAtWhatPasses(t *testing.T) {
	passes := []error{
		errTopicComing, outcome.ErrNotLeader, outcome.ErrNoLeader, outcome.ErrVoid, outcome.ErrShuttingDown,
		outcome.ErrUnknownFate, outcome.ErrTimeout,
	}
	for _, key := range []kmsg.Key{kmsg.Fetch, kmsg.ListOffsets, kmsg.OffsetForLeaderEpoch, kmsg.DescribeProducers, kmsg.WriteTxnMarkers} {
		for version := range kmsg.RequestForKey(key.Int16()).MaxVersion() + 1 {
			for _, e := range passes {
				if code := codeOf(fmt.Errorf("while trying: %w", e), key, version); code != kerr.NotLeaderForPartition.Code {
					t.Errorf("%s, version %d: %v is code %d", key.Name(), version, e, code)
				}
			}
		}
	}
}

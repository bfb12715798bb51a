package transaction

import (
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// MaxStateBytes bounds a shard's State. Beyond it a transactional id that is new gets
// POLICY_VIOLATION, and what would be added to a transaction TRANSACTION_ABORTABLE. An id takes
// about 400 bytes, a partition in an open transaction 64.
const MaxStateBytes = 128 << 20

// maxPattern bounds the pattern of ListTransactions, in bytes; a longer one gets
// INVALID_REGULAR_EXPRESSION.
const maxPattern = 1024

// Version is the version in which requests and responses of that API key travel between gateway
// and coordinator; false: it is none of the coordinator's keys. AddPartitionsToTxn of versions 0 to
// 3 is converted to the batched form of 5, with one transaction.
func Version(key int16) (int16, bool) {
	switch kmsg.Key(key) {
	case kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.EndTxn:
		return 5, true
	case kmsg.AddOffsetsToTxn:
		return 4, true
	case kmsg.DescribeTransactions:
		return 0, true
	case kmsg.ListTransactions:
		return 2, true
	}
	return 0, false
}

// Settings are named after Kafka's broker configurations. A field that is 0 has Kafka's default.
type Settings struct {
	// MaxTimeout (transaction.max.timeout.ms, 15 min) bounds what a producer may ask for.
	MaxTimeout time.Duration
	// AbortInterval (transaction.abort.timed.out.transaction.cleanup.interval.ms, 10 s) is how
	// often it is looked whether a transaction is open longer than its timeout. It is also how long
	// a producer that could not be heard, since the coordinator is new or its process stood still,
	// has to end its transaction itself.
	AbortInterval time.Duration
	// IDExpiration (transactional.id.expiration.ms, 7 days) is how long an id is kept that nobody
	// uses; RemoveInterval (transaction.remove.expired.transaction.cleanup.interval.ms, 1 h) is how
	// often it is looked.
	IDExpiration, RemoveInterval time.Duration
	// CommitTimeout (5 s) is how long a command may take to be replicated before its client is told
	// COORDINATOR_NOT_AVAILABLE.
	CommitTimeout time.Duration
	// EndWait (1 s) is how long a request waits for the transaction before it to be over
	// everywhere, before it is answered CONCURRENT_TRANSACTIONS. Kafka does not wait.
	EndWait time.Duration
	// NextWait (1 s) is how long it is not replicated that a transaction is over everywhere, so
	// that the next one need not say what it touches before (next.go). Kafka does not wait.
	NextWait time.Duration
}

// DefaultSettings are Kafka's.
func DefaultSettings() Settings { return Settings{}.WithDefaults() }

// WithDefaults gives fields that are 0 Kafka's defaults.
func (s Settings) WithDefaults() Settings {
	orElse(&s.MaxTimeout, 15*time.Minute)
	orElse(&s.AbortInterval, 10*time.Second)
	orElse(&s.IDExpiration, 7*24*time.Hour)
	orElse(&s.RemoveInterval, time.Hour)
	orElse(&s.CommitTimeout, 5*time.Second)
	orElse(&s.EndWait, time.Second)
	orElse(&s.NextWait, time.Second)
	return s
}

func orElse(v *time.Duration, value time.Duration) {
	if *v == 0 {
		*v = value
	}
}

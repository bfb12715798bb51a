package coordinator

import (
	"errors"
	"hash/fnv"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Shards is how many internal Raft groups the consumer groups are spread over. It
// never changes: ShardOf depends on it.
const Shards = 16

// ShardOf says which shard a group belongs to: FNV-1a of its id, modulo Shards.
func ShardOf(groupID string) int {
	h := fnv.New32a()
	h.Write([]byte(groupID))
	return int(h.Sum32() % Shards)
}

// Bounds on what clients can make grow. Together with Settings.MaxGroupSize and the
// bounds of package groups they bound what a shard keeps in memory, on disk and in one
// command.
const (
	// MaxProtocols is how many protocols (assignors) a member may offer; with more the
	// request is refused with INVALID_REQUEST.
	MaxProtocols = 100
	// MaxGroupBytes bounds, for one group, the sum of its members' subscriptions
	// under all protocols that they offer and of what they are assigned. A member
	// beyond it gets GROUP_MAX_SIZE_REACHED, an assignment beyond it
	// UNKNOWN_SERVER_ERROR, as Kafka's RECORD_TOO_LARGE there.
	MaxGroupBytes = 4 << 20
	// MaxLiveBytes bounds the same for all groups of a shard, with what their
	// members cost besides; beyond it, GROUP_MAX_SIZE_REACHED.
	MaxLiveBytes = 256 << 20
	// MaxLiveGroups is how many groups of a shard can have members at a time, those
	// that were only told their member id included; GROUP_MAX_SIZE_REACHED.
	MaxLiveGroups = 100_000
	// MaxStateBytes bounds a shard's State: groups, offsets and their metadata.
	// Beyond it a commit gets INVALID_COMMIT_OFFSET_SIZE.
	MaxStateBytes = 512 << 20
	// MaxMarkers bounds how many producers' last markers a shard remembers, one for each producer
	// in each group, of those that have nothing pending. Beyond it those that came longest ago are
	// forgotten. They take at most 100 MB, with ids of groups as long as may be, else about 10, so
	// that whoever ends ever so many transactions leaves others their part of MaxStateBytes.
	MaxMarkers = 1 << 16
)

// Client is who sent a request, as Kafka shows it in DescribeGroups.
type Client struct {
	ID   string // client.id of the request's header
	Host string // "/127.0.0.1"
	// Version is the request's version as the client sent it, which the converted
	// request does not tell. It decides on JoinGroup v4+ (MEMBER_ID_REQUIRED), v9+
	// (SkipAssignment), OffsetCommit v9+ and DescribeGroups v6+ (GROUP_ID_NOT_FOUND), and
	// TxnOffsetCommit v5+, which adds the group to the transaction (KIP-890).
	Version int16
}

// Version is the version in which requests and responses of that API key travel
// between gateway and coordinator; false: it is none of the coordinator's keys.
//
// It is the newest that kmsg knows, but for OffsetCommit, OffsetFetch and TxnOffsetCommit. Those
// are 9 and 5, the newest that call topics by name: whoever has only a topic's id (10 and up) names
// it first. What older versions know and these do not is converted before:
//   - JoinGroup v0 has no rebalance timeout: -1 is taken as the session timeout.
//   - LeaveGroup v0 to v2 name one member: a list of that one, and its error is the
//     response's.
//   - OffsetCommit v0 has neither member nor generation: "" and -1. The retention
//     time of v2 to v4 and the timestamp of v1 are not kept; clients send -1.
//   - TxnOffsetCommit v0 to v2 has neither member nor generation: "" and -1.
//   - OffsetFetch v0 to v7: a list of one group. v0 knows UNKNOWN_TOPIC_OR_PARTITION
//     where later versions have offset -1 and no error.
func Version(key int16) (int16, bool) {
	switch kmsg.Key(key) {
	case kmsg.OffsetCommit, kmsg.OffsetFetch:
		return 9, true
	case kmsg.TxnOffsetCommit:
		return 5, true
	case kmsg.JoinGroup, kmsg.Heartbeat, kmsg.LeaveGroup, kmsg.SyncGroup,
		kmsg.DescribeGroups, kmsg.ListGroups, kmsg.DeleteGroups, kmsg.OffsetDelete:
		return kmsg.RequestForKey(key).MaxVersion(), true
	}
	return 0, false
}

// ErrNotLeader is what Config.Propose wraps if this node does not lead the shard and
// the command surely goes nowhere: clients are told NOT_COORDINATOR and look for
// another one. After any other error they are told COORDINATOR_NOT_AVAILABLE and ask
// the same again. Handle wraps it if the next coordinator can be asked in their place.
var ErrNotLeader = errors.New("not the leader of the shard")

// Settings are named after Kafka's broker configurations. A field that is 0 has
// Kafka's default, InitialRebalanceDelay excepted.
type Settings struct {
	// MinSessionTimeout and MaxSessionTimeout (group.min.session.timeout.ms, 6 s;
	// group.max.session.timeout.ms, 30 min) bound what members may ask for.
	MinSessionTimeout, MaxSessionTimeout time.Duration
	// MaxGroupSize (group.max.size) is how many members a group may have. Kafka's
	// default is no bound; here it is 10,000.
	MaxGroupSize int
	// InitialRebalanceDelay (group.initial.rebalance.delay.ms, 3 s) is how long an
	// empty group waits for more members before its first generation. 0 is no delay.
	InitialRebalanceDelay time.Duration
	// OffsetsRetention (offsets.retention.minutes, 7 days) is how long offsets are
	// kept after their group lost its last member; of groups that never had members,
	// after they were committed.
	OffsetsRetention time.Duration
	// RetentionCheckInterval (offsets.retention.check.interval.ms, 10 min).
	RetentionCheckInterval time.Duration
	// OffsetMetadataMaxBytes (offset.metadata.max.bytes, 4096).
	OffsetMetadataMaxBytes int
	// CommitTimeout (offsets.commit.timeout.ms, 5 s) is how long a command may take
	// to be replicated before its client is told COORDINATOR_NOT_AVAILABLE.
	CommitTimeout time.Duration
	// NewMemberJoinTimeout is how long a member that has not been told its id may
	// wait in JoinGroup; 5 min, in Kafka not configurable.
	NewMemberJoinTimeout time.Duration
}

// DefaultSettings are Kafka's.
func DefaultSettings() Settings {
	return Settings{InitialRebalanceDelay: 3 * time.Second}.withDefaults()
}

func (s Settings) withDefaults() Settings {
	orElse(&s.MinSessionTimeout, 6*time.Second)
	orElse(&s.MaxSessionTimeout, 30*time.Minute)
	orElse(&s.MaxGroupSize, 10_000)
	orElse(&s.OffsetsRetention, 7*24*time.Hour)
	orElse(&s.RetentionCheckInterval, 10*time.Minute)
	orElse(&s.OffsetMetadataMaxBytes, 4096)
	orElse(&s.CommitTimeout, 5*time.Second)
	orElse(&s.NewMemberJoinTimeout, 5*time.Minute)
	return s
}

func orElse[T ~int | ~int64](v *T, value T) {
	if *v == 0 {
		*v = value
	}
}

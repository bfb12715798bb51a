package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/fsm/groups"
	"github.com/trimaran-io/trimaran/internal/locks"
	"github.com/trimaran-io/trimaran/internal/tenure"
)

// Config is what a Coordinator works with. State, Propose, TopicID and TopicName
// are needed.
type Config struct {
	// State is the replica of this node. All commands of earlier terms must be
	// applied before New: whoever just won an election lets a barrier pass first.
	State *State
	// Propose replicates a command and returns when it is applied to State here.
	// An error that wraps ErrNotLeader means that it surely is not and will not be,
	// any other that this is not known. It must return soon after ctx has ended.
	Propose func(ctx context.Context, command []byte) error
	// TopicID and TopicName know the topics as the node's catalog has them. Offsets
	// of a topic whose id is another one by now or is gone count as none. They may wait for
	// the catalog to catch up, and are called with no lock held.
	TopicID   func(name string) ([16]byte, bool)
	TopicName func(id [16]byte) (string, bool)
	// Join asks a transaction's coordinator to add a group to it (t.Add), or whether it was added.
	// Errors are those of outcome: ErrInvalidTxnState, ErrConcurrentTransactions,
	// ErrProducerFenced, ErrInvalidProducerEpoch, ErrInvalidProducerIDMapping,
	// ErrTransactionAbortable; any other is no answer. It is called with no lock held. nil: there
	// are no transactions.
	Join func(ctx context.Context, t fsm.Transaction, producerID int64, epoch int16, group string) error
	// Awake gives since when this process runs without having stood still: nobody was heard before
	// that. nil: always.
	Awake    func() time.Time
	Settings Settings
	Logger   *slog.Logger // nil: slog's default
}

// Coordinator serves the groups of one shard on the node that leads it, for one
// term.
type Coordinator struct {
	cfg Config
	set Settings
	log *slog.Logger

	// tenure has all that runs: requests, timers' functions, writers.
	tenure *tenure.Tenure
	// mintID makes a member id out of a prefix; nil: with a random UUID. Tests set it.
	mintID func(prefix string) string
	// maxState is MaxStateBytes, in bytes; tests make it less.
	maxState int
	// maxMarkers is MaxMarkers; tests make it less.
	maxMarkers int
	// forgetting: last markers are being forgotten. forgotten counts how often that was begun.
	forgetting atomic.Bool
	forgotten  atomic.Uint64

	// bytes is the sum of all groups' bytes, see MaxLiveBytes.
	bytes atomic.Int64

	// mu guards what follows, the groups' entries in the map and not what is in them. State's may
	// be taken under it, and timers are set, which takes the tenure's; a group's may not, and
	// nothing is waited for.
	mu locks.Mutex[Coordinator]
	// groups are those that have members, are about to, or have a command on its
	// way. Of all others State knows everything.
	groups map[string]*group
	// gone are topics that the last sweep found offsets of, but not in the catalog.
	gone map[[16]byte]bool
}

// New takes over the shard. Members that State knows are alive and have a full
// session timeout from now on to say so.
func New(cfg Config) *Coordinator {
	c := &Coordinator{
		cfg: cfg, set: cfg.Settings.withDefaults(), log: cfg.Logger, groups: make(map[string]*group),
		maxState: MaxStateBytes, maxMarkers: MaxMarkers, tenure: tenure.New(),
	}
	if c.log == nil {
		c.log = slog.Default()
	}
	for _, id := range cfg.State.ids() {
		if meta, _ := cfg.State.lookUp(id); meta != nil && len(meta.Members) > 0 {
			if g := c.lockGroup(id, true); g != nil {
				c.unlockGroup(g)
			}
		}
	}
	c.tenure.After(c.set.RetentionCheckInterval, c.sweepAll)
	return c
}

// Close ends everything: who waits gets NOT_COORDINATOR, who comes later
// ErrNotLeader. It waits for commands that are on their way; when it returns, no
// goroutine is left and no timer.
func (c *Coordinator) Close() { c.tenure.End() }

// more gives how much longer a wait of d that began then has to last: this process may have stood
// still meanwhile, and whoever it waits for could not be heard. Then it begins anew with the end of
// that.
func (c *Coordinator) more(began time.Time, d time.Duration) time.Duration {
	if c.cfg.Awake == nil {
		return 0
	}
	awake := c.cfg.Awake()
	if !awake.After(began) {
		return 0
	}
	return max(time.Until(awake.Add(d)), 0)
}

// Handle answers a request whose API key Version knows. JoinGroup and SyncGroup
// wait for other members; they end with ctx. The error says that there is no
// answer: ctx has ended, or the request is of another kind, or, if it wraps
// ErrNotLeader, surely nothing was done and another coordinator is to be asked.
//
// The response has the request's version.
func (c *Coordinator) Handle(ctx context.Context, client Client, req kmsg.Request) (kmsg.Response, error) {
	if _, ok := Version(req.Key()); !ok {
		return nil, fmt.Errorf("%s is not for the coordinator of a group", kmsg.NameForKey(req.Key()))
	}
	if !c.tenure.Begin() {
		return nil, ErrNotLeader
	}
	defer c.tenure.Done()
	client.ID, client.Host = cut(client.ID, groups.MaxName), cut(client.Host, groups.MaxName)
	switch req := req.(type) {
	case *kmsg.JoinGroupRequest:
		return c.joinGroup(ctx, client, req)
	case *kmsg.SyncGroupRequest:
		return c.syncGroup(ctx, req)
	case *kmsg.HeartbeatRequest:
		return c.heartbeat(req), nil
	case *kmsg.LeaveGroupRequest:
		return c.leaveGroup(ctx, req)
	case *kmsg.OffsetCommitRequest:
		return c.offsetCommit(ctx, client, req)
	case *kmsg.TxnOffsetCommitRequest:
		return c.txnOffsetCommit(ctx, client, req)
	case *kmsg.OffsetFetchRequest:
		return c.offsetFetch(req), nil
	case *kmsg.OffsetDeleteRequest:
		return c.offsetDelete(ctx, req)
	case *kmsg.DescribeGroupsRequest:
		return c.describeGroups(client, req), nil
	case *kmsg.ListGroupsRequest:
		return c.listGroups(req), nil
	case *kmsg.DeleteGroupsRequest:
		return c.deleteGroups(ctx, req)
	}
	return nil, fmt.Errorf("%T is not for the coordinator of a group", req)
}

// topicID is Config.TopicID. It may wait.
func (c *Coordinator) topicID(name string) ([16]byte, bool) {
	locks.MayWait("the catalog")
	return c.cfg.TopicID(name)
}

// topicName is Config.TopicName. It may wait.
func (c *Coordinator) topicName(id [16]byte) (string, bool) {
	locks.MayWait("the catalog")
	return c.cfg.TopicName(id)
}

// codeOf is what a client is told after Propose gave err.
func (c *Coordinator) codeOf(err error) int16 {
	switch {
	case err == nil:
		return 0
	case c.tenure.Over(), errors.Is(err, ErrNotLeader):
		return kerr.NotCoordinator.Code
	}
	return kerr.CoordinatorNotAvailable.Code
}

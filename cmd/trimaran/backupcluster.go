package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/backup"
	"github.com/trimaran-io/trimaran/fsm"
)

// backupKey is the API of backups (gateway.BackupKey): the length of a JSON text (int32), the text,
// which is an admin.BackupRequest, and record batches.
const backupKey = 21590

// backupCluster is a cluster as package backup sees it: what every client may ask goes by Kafka's
// APIs, the rest by one of Trimaran's own.
type backupCluster struct {
	b   *brokers
	cl  *kgo.Client
	adm *kadm.Client
	own *ownCalls
	// patience is how long is asked again where nobody answers: longer than an election takes, or
	// the restart of a node.
	patience time.Duration
}

// clusterForBackup gives a cluster that the caller closes.
func clusterForBackup(b *brokers, patience time.Duration) (*backupCluster, error) {
	cl, err := b.client()
	if err != nil {
		return nil, err
	}
	return &backupCluster{b: b, cl: cl, adm: kadm.NewClient(cl), own: &ownCalls{b: b}, patience: patience}, nil
}

func (c *backupCluster) close() {
	c.own.close()
	c.cl.Close()
}

// ask makes a request of Trimaran's own, again where that may help. All may be made twice: a hold
// whose answer is lost ends by itself.
func (c *backupCluster) ask(ctx context.Context, request admin.BackupRequest, batches []byte) (answer admin.BackupAnswer, err error) {
	text, err := json.Marshal(request)
	if err != nil {
		return answer, err
	}
	body := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(text)+len(batches)), uint32(len(text)))
	body = append(append(body, text...), batches...)
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	for {
		raw, err := c.own.ask(ctx, backupKey, body)
		if err != nil {
			return answer, err
		}
		answer = admin.BackupAnswer{}
		if err := decodeOwn(raw, &answer); err != nil {
			return answer, err
		}
		if answer.Error == "" {
			return answer, nil
		}
		// Producers wait for holds, so backup.Create says when to try that again.
		if !answer.Retriable || request.Op == admin.HoldCommits {
			return answer, errors.New(answer.Error)
		}
		select {
		case <-ctx.Done():
			return answer, errors.New(answer.Error)
		case <-time.After(ownRetryPause):
		}
	}
}

// Catalog implements backup.Source.
func (c *backupCluster) Catalog(ctx context.Context) (*admin.CatalogCopy, error) {
	answer, err := c.ask(ctx, admin.BackupRequest{Op: admin.BackupCatalog}, nil)
	if err != nil {
		return nil, err
	}
	if answer.Catalog == nil || answer.Catalog.ClusterID == "" {
		return nil, errors.New("the node that answers does not know the cluster yet")
	}
	return answer.Catalog, nil
}

// gone gives backup.ErrGone if the topic is not there, and else err.
func (c *backupCluster) gone(ctx context.Context, id fsm.TopicID, err error) error {
	catalog, cerr := c.Catalog(ctx)
	if cerr != nil {
		return cerr
	}
	if !slices.ContainsFunc(catalog.Topics, func(t admin.TopicCopy) bool { return t.ID == id }) {
		return fmt.Errorf("%w: %w", backup.ErrGone, err)
	}
	return err
}

// again calls one until it succeeds or fails for good, or the patience is over.
func (c *backupCluster) again(ctx context.Context, id fsm.TopicID, one func(context.Context) error) error {
	within, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	for {
		err := one(within)
		if err == nil || errors.Is(err, backup.ErrTrimmed) || errors.Is(err, backup.ErrNothing) || ctx.Err() != nil {
			return err
		}
		e := (*kerr.Error)(nil)
		known := errors.As(err, &e)
		if known && (e.Code == kerr.UnknownTopicOrPartition.Code || e.Code == kerr.UnknownTopicID.Code) {
			if err := c.gone(ctx, id, err); errors.Is(err, backup.ErrGone) {
				return err
			}
		} else if known && !e.Retriable {
			return err
		}
		select {
		case <-within.Done():
			return err
		case <-time.After(ownRetryPause):
		}
	}
}

// Bounds implements backup.Source.
func (c *backupCluster) Bounds(ctx context.Context, topic admin.TopicCopy, partition int32) (start, end int64, epoch int32, err error) {
	tries := epochTries
	err = c.again(ctx, topic.ID, func(ctx context.Context) error {
		if start, _, err = c.offset(ctx, topic.Name, partition, earliest); err != nil {
			return err
		}
		if end, epoch, err = c.offset(ctx, topic.Name, partition, latest); err != nil {
			return err
		}
		return knownEpoch(epoch, &tries)
	})
	return start, max(start, end), max(epoch, 0), err
}

// epochTries is how often is asked again where a node does not know the leader epoch yet.
const epochTries = 3

// knownEpoch gives an error that has again ask again, where the leader epoch is not known and tries
// are left.
func knownEpoch(epoch int32, tries *int) error {
	if epoch < 0 && *tries > 0 {
		*tries--
		return fmt.Errorf("the leader epoch is not known to a node yet: %w", kerr.NotLeaderForPartition)
	}
	return nil
}

// offset gives an end of a log, and the leader epoch there.
func (c *backupCluster) offset(ctx context.Context, topic string, partition int32, which int64) (offset int64, epoch int32, err error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = partition, which, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := ask[*kmsg.ListOffsetsResponse](ctx, c.b, c.cl, req)
	if err != nil {
		return 0, 0, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, 0, errors.New("the answer is not about what was asked")
	}
	p := resp.Topics[0].Partitions[0]
	return p.Offset, p.LeaderEpoch, kerr.ErrorForCode(p.ErrorCode)
}

const (
	fetchBytes = 4 << 20
	fetchWait  = 500 // ms
	// nothingTries is how often a node that knows of a later end must have said that there is
	// nothing, before that is taken for true.
	nothingTries = 4
)

// Read implements backup.Source.
func (c *backupCluster) Read(ctx context.Context, topic admin.TopicCopy, partition int32, offset int64) (batches []byte, err error) {
	var end int64
	nothing := 0
	err = c.again(ctx, topic.ID, func(ctx context.Context) error {
		batches, end, err = c.fetch(ctx, topic, partition, offset)
		if errors.Is(err, kerr.OffsetOutOfRange) {
			start, end, berr := c.offsets(ctx, topic.Name, partition)
			if berr == nil && offset < start {
				return fmt.Errorf("%w: at %d, above %d", backup.ErrTrimmed, start, offset)
			}
			return errors.Join(fmt.Errorf("offset %d of %d to %d: %w", offset, start, end, err), berr)
		}
		if err == nil && len(batches) == 0 && offset < end {
			// A node that lags does not know such an end.
			if nothing++; nothing >= nothingTries {
				return backup.ErrNothing
			}
		}
		if err == nil && len(batches) == 0 {
			err = fmt.Errorf("nothing to read at offset %d: %w", offset, kerr.NotLeaderForPartition)
		}
		return err
	})
	return batches, err
}

func (c *backupCluster) offsets(ctx context.Context, topic string, partition int32) (start, end int64, err error) {
	if start, _, err = c.offset(ctx, topic, partition, earliest); err == nil {
		end, _, err = c.offset(ctx, topic, partition, latest)
	}
	return start, end, err
}

func (c *backupCluster) fetch(ctx context.Context, topic admin.TopicCopy, partition int32, offset int64) (batches []byte, end int64, err error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch = fetchWait, 1, 2*fetchBytes, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = topic.Name, topic.ID
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch, rp.LastFetchedEpoch, rp.LogStartOffset = partition, offset, fetchBytes, -1, -1, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := ask[*kmsg.FetchResponse](ctx, c.b, c.cl, req)
	if err != nil {
		return nil, 0, err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, 0, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, 0, errors.New("the answer is not about what was asked")
	}
	p := resp.Topics[0].Partitions[0]
	return p.RecordBatches, p.HighWatermark, kerr.ErrorForCode(p.ErrorCode)
}

// Groups implements backup.Source.
func (c *backupCluster) Groups(ctx context.Context) (groups []backup.Group, err error) {
	err = c.again(ctx, fsm.TopicID{}, func(ctx context.Context) error {
		groups = groups[:0]
		listed, err := c.adm.ListGroups(ctx)
		if err != nil {
			return err
		}
		for ids := range slices.Chunk(listed.Groups(), atOnce) {
			all := c.adm.FetchManyOffsets(ctx, ids...)
			for _, id := range ids {
				committed, ok := all[id]
				if !ok {
					return fmt.Errorf("group %q: no answer of its offsets", id)
				}
				if committed.Err != nil {
					return fmt.Errorf("group %q: %w", id, committed.Err)
				}
				g := backup.Group{ID: id}
				for _, o := range committed.Fetched.Sorted() {
					if o.Err != nil {
						return fmt.Errorf("group %q: %w", id, o.Err)
					}
					if o.At < 0 {
						continue
					}
					offset := backup.GroupOffset{Topic: o.Topic, Partition: o.Partition, Offset: o.At, Epoch: max(o.LeaderEpoch, -1)}
					if o.Metadata != "" {
						offset.Metadata = &o.Metadata
					}
					g.Offsets = append(g.Offsets, offset)
				}
				groups = append(groups, g)
			}
		}
		return nil
	})
	return groups, err
}

// atOnce is how many groups or partitions one request is about, where producers wait for all.
const atOnce = 500

// Ends implements backup.Source.
func (c *backupCluster) Ends(ctx context.Context, topics []admin.TopicCopy) (ends [][]backup.End, err error) {
	type place struct{ topic, partition int }
	var all []place
	for i, t := range topics {
		ends = append(ends, make([]backup.End, t.Partitions))
		for p := range t.Partitions {
			all = append(all, place{i, p})
		}
	}
	gone := make([]atomic.Bool, len(topics))
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(4)
	for some := range slices.Chunk(all, atOnce) {
		work.Go(func() error {
			req := kmsg.NewPtrListOffsetsRequest()
			req.ReplicaID = -1
			for i, at := range some {
				if i == 0 || at.topic != some[i-1].topic {
					t := kmsg.NewListOffsetsRequestTopic()
					t.Topic = topics[at.topic].Name
					req.Topics = append(req.Topics, t)
				}
				p := kmsg.NewListOffsetsRequestTopicPartition()
				p.Partition, p.Timestamp, p.CurrentLeaderEpoch = int32(at.partition), latest, -1
				t := &req.Topics[len(req.Topics)-1]
				t.Partitions = append(t.Partitions, p)
			}
			tries := epochTries
			// One partition that is led nowhere has all of them asked again, which is seldom.
			return c.again(ctx, fsm.TopicID{}, func(ctx context.Context) error {
				resp, err := ask[*kmsg.ListOffsetsResponse](ctx, c.b, c.cl, req)
				if err != nil {
					return err
				}
				answered := 0
				for _, t := range resp.Topics {
					for _, p := range t.Partitions {
						if answered == len(some) || t.Topic != topics[some[answered].topic].Name || int(p.Partition) != some[answered].partition {
							return errors.New("the answer is not about what was asked")
						}
						at := some[answered]
						answered++
						if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
							if errors.Is(err, kerr.UnknownTopicOrPartition) {
								if errors.Is(c.gone(ctx, topics[at.topic].ID, err), backup.ErrGone) {
									gone[at.topic].Store(true)
									continue
								}
								err = fmt.Errorf("not known to a node yet: %w", kerr.NotLeaderForPartition)
							}
							return fmt.Errorf("partition %d of %s: %w", p.Partition, t.Topic, err)
						}
						if err := knownEpoch(p.LeaderEpoch, &tries); err != nil {
							return fmt.Errorf("partition %d of %s: %w", p.Partition, t.Topic, err)
						}
						ends[at.topic][at.partition] = backup.End{Offset: p.Offset, Epoch: p.LeaderEpoch}
					}
				}
				if answered != len(some) {
					return errors.New("the answer is not about all that was asked")
				}
				return nil
			})
		})
	}
	err = work.Wait()
	for i := range topics {
		if gone[i].Load() {
			ends[i] = nil
		}
	}
	return ends, err
}

// Hold implements backup.Source.
func (c *backupCluster) Hold(ctx context.Context) (release func(context.Context) (bool, error), err error) {
	catalog, err := c.Catalog(ctx)
	if err != nil {
		return nil, err
	}
	if catalog.FeatureLevel < fsm.LevelHolds {
		return nil, fmt.Errorf("%w: that needs level %d on all nodes, and the cluster is at %d", backup.ErrNeverHeld, fsm.LevelHolds, catalog.FeatureLevel)
	}
	answer, err := c.ask(ctx, admin.BackupRequest{Op: admin.HoldCommits}, nil)
	if err != nil {
		return nil, fmt.Errorf("commits could not be held: %w", err)
	}
	return func(ctx context.Context) (bool, error) {
		answer, err := c.ask(ctx, admin.BackupRequest{Op: admin.ReleaseCommits, Holds: answer.Holds}, nil)
		return answer.Held, err
	}, nil
}

// CreateRestoring implements backup.Target.
func (c *backupCluster) CreateRestoring(ctx context.Context, spec fsm.TopicSpec) error {
	_, err := c.ask(ctx, admin.BackupRequest{Op: admin.RestoreTopic, Create: &spec}, nil)
	return err
}

// Append implements backup.Target.
func (c *backupCluster) Append(ctx context.Context, topic fsm.TopicID, partition int32, batches []byte, last bool) (int64, error) {
	answer, err := c.ask(ctx, admin.BackupRequest{Op: admin.RestoreBatches, Topic: topic, Partition: partition, Last: last}, batches)
	return int64(answer.Next), err
}

// DeleteBefore implements backup.Target.
func (c *backupCluster) DeleteBefore(ctx context.Context, topic string, partition int32, offset int64) error {
	return c.again(ctx, fsm.TopicID{}, func(ctx context.Context) error {
		offsets := kadm.Offsets{}
		offsets.AddOffset(topic, partition, offset, -1)
		answers, err := c.adm.DeleteRecords(ctx, offsets)
		if err != nil {
			return err
		}
		return answers.Error()
	})
}

// Commit implements backup.Target.
func (c *backupCluster) Commit(ctx context.Context, group backup.Group) error {
	offsets := kadm.Offsets{}
	for _, o := range group.Offsets {
		add := kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: o.Offset, LeaderEpoch: o.Epoch}
		if o.Metadata != nil {
			add.Metadata = *o.Metadata
		}
		offsets.Add(add)
	}
	err := c.again(ctx, fsm.TopicID{}, func(ctx context.Context) error {
		answers, err := c.adm.CommitOffsets(ctx, group.ID, offsets)
		if err != nil {
			return err
		}
		return answers.Error()
	})
	for _, busy := range []error{kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.IllegalGeneration} {
		if errors.Is(err, busy) {
			return fmt.Errorf("%w: %w", backup.ErrGroupBusy, err)
		}
	}
	return err
}

// Secure implements backup.Target.
func (c *backupCluster) Secure(ctx context.Context, security admin.CatalogSecurity) error {
	if len(security.Credentials) > 0 && c.b.hidden("") != nil {
		return errors.New("what is derived from users' passwords could be read on the way: give tls://, wss:// or unix:, or --no-security")
	}
	_, err := c.ask(ctx, admin.BackupRequest{Op: admin.RestoreSecurity, Security: &security}, nil)
	return err
}

// End implements backup.Target.
func (c *backupCluster) End(ctx context.Context, topic fsm.TopicID, producers int64) error {
	_, err := c.ask(ctx, admin.BackupRequest{Op: admin.EndRestore, Topic: topic, Producers: producers}, nil)
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/test/harness"
)

// What an id may cost a node that has nothing else of it: memory, with the garbage that Go lets
// stand at its default (as much as is live), and disk, with commands that no snapshot stands for
// yet.
const (
	memoryPerID = 3 << 10
	diskPerID   = 1 << 10
	idsAtOnce   = 128
)

func idName(n int) string { return fmt.Sprintf("payments-of-customer-%08d", n) }

func manyIDs(ctx context.Context, r *run) error {
	cl, err := r.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	before, disk := r.most(), sizeOf(r.cluster.Node(1).Data)
	if err := r.took(fmt.Sprintf("InitProducerId of %d ids", r.ids), func() error { return r.initAll(ctx, cl) }); err != nil {
		return err
	}
	if err := r.took("listing them", func() error { return r.listAll(ctx, r.cluster.Node(1)) }); err != nil {
		return err
	}
	if err := r.bounded("with all ids", before, disk); err != nil {
		return err
	}
	one, err := r.producer(idName(7), time.Minute)
	if err != nil {
		return err
	}
	defer one.Close()
	if err := one.ProduceSync(ctx, &kgo.Record{Topic: bystanderTopic, Value: []byte("aborted")}).FirstErr(); err != nil {
		return err
	}
	if err := r.took("aborting the transaction of one", func() error { return one.EndTransaction(ctx, kgo.TryAbort) }); err != nil {
		return err
	}
	node := r.cluster.Node(2)
	if err := r.took("restart of "+node.ID, func() error {
		if _, err := node.Terminate(time.Minute); err != nil {
			return err
		}
		return node.Restart()
	}); err != nil {
		return err
	}
	if err := r.took("listing them there", func() error { return r.listAll(ctx, node) }); err != nil {
		return err
	}
	leader, err := r.leaderOf(idName(7))
	if err != nil {
		return err
	}
	if err := leader.Kill9(); err != nil {
		return err
	}
	if err := r.took("kill -9 of "+leader.ID+", which leads the shard of one, until that is answered", func() error {
		return initID(ctx, cl, idName(7))
	}); err != nil {
		return err
	}
	if err := leader.Restart(); err != nil {
		return err
	}
	if err := r.took("listing them on "+leader.ID+", which is back", func() error { return r.listAll(ctx, leader) }); err != nil {
		return err
	}
	return r.bounded("at the end", before, disk)
}

// initAll asks for a producer id for each.
func (r *run) initAll(ctx context.Context, cl *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var next atomic.Int64
	var work sync.WaitGroup
	failed := make([]error, idsAtOnce)
	for w := range idsAtOnce {
		work.Go(func() {
			for failed[w] == nil {
				n := int(next.Add(1)) - 1
				if n >= r.ids {
					return
				}
				failed[w] = initID(ctx, cl, idName(n))
			}
		})
	}
	work.Wait()
	return errors.Join(failed...)
}

// initID is InitProducerId, sent to any node: each finds the coordinator.
func initID(ctx context.Context, cl *kgo.Client, id string) error {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = &id, 60_000
	for {
		seeds := cl.SeedBrokers()
		resp, err := seeds[int(shardOf(id))%len(seeds)].Request(ctx, req)
		if err != nil { // its node may be down
			resp, err = seeds[int(shardOf(id)+1)%len(seeds)].Request(ctx, req)
		}
		if err == nil {
			err = kerr.ErrorForCode(resp.(*kmsg.InitProducerIDResponse).ErrorCode)
		}
		var told *kerr.Error
		if err == nil || ctx.Err() != nil || errors.As(err, &told) && !told.Retriable {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// listAll wants each id in ListTransactions of a node, once.
func (r *run) listAll(ctx context.Context, n *harness.Node) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(n.Addr()))
	if err != nil {
		return err
	}
	defer cl.Close()
	listed, err := kadm.NewClient(cl).ListTransactions(ctx, nil, nil)
	if err != nil {
		return err
	}
	for i := range r.ids {
		if _, there := listed[idName(i)]; !there {
			return fmt.Errorf("%s is not listed; %d are", idName(i), len(listed))
		}
	}
	if len(listed) != r.ids {
		return fmt.Errorf("%d ids are listed, want %d", len(listed), r.ids)
	}
	return nil
}

// bounded holds what the nodes have since there were no ids against the bounds.
func (r *run) bounded(when string, memory, disk int64) error {
	memory, disk = r.most()-memory, sizeOf(r.cluster.Node(1).Data)-disk
	r.say("%s: a node has %.1f MiB more of memory at most (%d bytes an id), n1 %.1f MiB more on disk (%d)", when,
		float64(memory)/mib, memory/int64(r.ids), float64(disk)/mib, disk/int64(r.ids))
	const slack = 64 * mib // of what is not about ids
	if memory > slack+memoryPerID*int64(r.ids) || disk > slack+diskPerID*int64(r.ids) {
		return fmt.Errorf("more than %d bytes of memory or %d of disk an id, and %d MiB", memoryPerID, diskPerID, slack/mib)
	}
	return nil
}

// shardOf is the shard of a transactional id: FNV-1a, modulo 16 (docs/architecture.md).
func shardOf(id string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(id))
	return h.Sum32() % 16
}

// leaderOf gives the node where the id's coordinator is.
func (r *run) leaderOf(id string) (leader *harness.Node, err error) {
	last := errors.New("nobody was asked")
	err = harness.Eventually(time.Minute, func() bool {
		for _, n := range r.cluster.Nodes {
			s, err := n.Status()
			if err != nil {
				last = err
				continue
			}
			for _, p := range s.GroupShards {
				if p.Partition == int32(shardOf(id)) && p.Leader != "" {
					leader = r.cluster.NodeByID(p.Leader)
					return leader != nil && leader.Running()
				}
			}
		}
		return false
	})
	if err != nil {
		return nil, fmt.Errorf("the shard of %s has no leader: %w", id, last)
	}
	return leader, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/test/harness"
)

// perKill is how many records are written between two kills.
const perKill = 100

// underKills has members of groups, one for each mechanism, read through the shim while every node
// is killed with kill -9 once, so that the one behind the shim is among them. A client whose
// producer is idempotent writes what they read. Nobody's connection may end.
func (b *bench) underKills(ctx context.Context, r prepared) []result {
	var out []result
	var all []*attempt
	for _, m := range mechanisms {
		a, res := b.newAttempt(r, m, "shim", "kill")
		if a != nil {
			all = append(all, a)
		}
		out = append(out, res)
	}
	started := time.Now()
	var err error
	if len(all) > 0 {
		err = b.killEach(ctx, all)
	}
	for i := range out {
		for _, a := range all {
			if a.mechanism == out[i].Mechanism {
				out[i] = a.result(out[i], started, err)
			}
		}
	}
	return out
}

func (b *bench) killEach(ctx context.Context, all []*attempt) error {
	judge, err := kgo.NewClient(append(harness.Seeds(b.driverAddr), kgo.MetadataMinAge(50*time.Millisecond))...)
	if err != nil {
		return err
	}
	defer judge.Close()
	readers, writers := make([]*client, len(all)), make([]*client, len(all))
	written := make([][]record, len(all))
	for i, a := range all {
		if err := errors.Join(a.as(rightUser), a.makeTopic(ctx, a.topic, partitions)); err != nil {
			return err
		}
		if readers[i], err = a.startClient(ctx, "member", a.args("group", a.topic+"-group")...); err != nil {
			return err
		}
		if a.idempotent {
			if writers[i], err = a.startClient(ctx, "produce", a.args("produce", "none")...); err != nil {
				return err
			}
		}
	}
	write := func(round int) error {
		for i, a := range all {
			records := batch(fmt.Sprintf("round-%d", round), perKill)
			written[i] = append(written[i], records...)
			if w := writers[i]; w != nil {
				if _, err := w.stdin.Write(lines(records)); err != nil {
					return err
				}
				continue
			}
			if err := produceAs(ctx, judge, a.topic, records); err != nil {
				return err
			}
		}
		return nil
	}
	readAll := func() error {
		for i, a := range all {
			if err := a.await("the member reads on", func() (bool, error) {
				return distinct(readers[i].got()) >= len(written[i]), readers[i].ended()
			}); err != nil {
				return fmt.Errorf("%s: %w (%d of %d records came)", a.mechanism, err, readers[i].count(), len(written[i]))
			}
		}
		return nil
	}
	if err := errors.Join(write(0), readAll()); err != nil {
		return fmt.Errorf("before a kill: %w", err)
	}
	before := b.guard.relay.broken.Load()
	for i, n := range b.cluster.Nodes {
		all[0].trace("kill -9 %s", n.ID)
		if err := n.Kill9(); err != nil {
			return err
		}
		err := errors.Join(write(i+1), readAll())
		if err := errors.Join(err, n.Restart()); err != nil {
			return fmt.Errorf("after %s was killed: %w", n.ID, err)
		}
	}
	if n := b.guard.relay.broken.Load() - before; n > 0 {
		return fmt.Errorf("the shim ended %d connections", n)
	}
	for i, a := range all {
		if w := writers[i]; w != nil {
			if err := a.leave(w); err != nil {
				return err
			}
		}
		if err := a.leave(readers[i]); err != nil {
			return err
		}
		if _, err := check(written[i], readers[i].got(), a.rules(true)); err != nil {
			return fmt.Errorf("%s: %w", a.mechanism, err)
		}
	}
	return nil
}

// produceAs writes records as a client of the contract does.
func produceAs(ctx context.Context, cl *kgo.Client, topic string, records []record) error {
	for _, r := range records {
		k := &kgo.Record{Topic: topic, Key: []byte(r.key), Value: []byte(r.value), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("interop")}}}
		if err := cl.ProduceSync(ctx, k).FirstErr(); err != nil {
			return err
		}
	}
	return nil
}

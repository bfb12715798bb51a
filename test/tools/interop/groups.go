package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// group writes all chunks while a group reads them: one member from the first
// chunk on, a second that joins while the others are written, and one more chunk when they
// share the partitions. Both leave when everything was read and committed; what is written then
// is what a new member must get, and nothing else.
func (a *attempt) group(ctx context.Context, chunks []chunk) (written []record, codecs []string, err error) {
	group := a.topic + "-group"
	write := func(c chunk, kill bool) error {
		was, err := a.produce(ctx, c, kill)
		if was {
			written, codecs = append(written, c.records...), append(codecs, c.codec)
		}
		return err
	}
	member := func(name string) (*client, error) {
		return a.startClient(ctx, name, a.args("group", group)...)
	}
	if err := write(chunks[0], false); err != nil {
		return nil, nil, err
	}
	a.trace("first member")
	one, err := member("member-1")
	if err != nil {
		return nil, nil, err
	}
	if err := a.await("the first member reads", func() (bool, error) { return one.count() >= len(written)/2, one.ended() }); err != nil {
		return nil, nil, fmt.Errorf("%w (%d of %d records came)", err, one.count(), len(written))
	}
	a.trace("second member")
	two, err := member("member-2")
	if err != nil {
		return nil, nil, err
	}
	for i, c := range chunks[1:] {
		if err := write(c, a.pass == "kill" && i == 0); err != nil {
			return nil, nil, err
		}
	}
	if err := a.await("two members share the partitions", func() (bool, error) {
		both, err := a.shared(ctx, group)
		return both, errors.Join(err, one.ended(), two.ended())
	}); err != nil {
		return nil, nil, err
	}
	before := two.count()
	// Not the last of the chunks: the client may turn out not to have its codec.
	if err := write(chunk{a.codecs[0], batch("shared", a.records)}, false); err != nil {
		return nil, nil, err
	}
	a.trace("both read to the end")
	together := func() []record { return append(one.got(), two.got()...) }
	err = a.await("the group reads everything", func() (bool, error) {
		return distinct(together()) >= len(written), errors.Join(one.ended(), two.ended())
	})
	if err != nil {
		_, why := check(written, together(), a.rules(true))
		return nil, nil, fmt.Errorf("%w: %w", err, why)
	}
	if two.count() == before {
		return nil, nil, errors.New("the second member got nothing after the rebalance")
	}
	for _, c := range []*client{one, two} {
		if err := a.leave(c); err != nil {
			return nil, nil, err
		}
	}
	repeats, err := check(written, together(), a.rules(true))
	if err != nil {
		return nil, nil, fmt.Errorf("group: %w", err)
	}
	if repeats > 0 {
		a.note("%d records were read again after the rebalance", repeats)
	}
	if err := a.committed(ctx, group); err != nil {
		return nil, nil, err
	}

	a.trace("restart from the commit")
	more := chunk{a.codecs[0], batch("more", max(100, a.records/20))}
	if err := write(more, false); err != nil {
		return nil, nil, err
	}
	three, err := member("member-3")
	if err != nil {
		return nil, nil, err
	}
	err = a.await("a new member goes on at the commit", func() (bool, error) {
		return distinct(three.got()) >= len(more.records), three.ended()
	})
	if err != nil {
		return nil, nil, fmt.Errorf("%w (%d of %d records came)", err, three.count(), len(more.records))
	}
	if err := a.leave(three); err != nil {
		return nil, nil, err
	}
	if _, err := check(more.records, three.got(), a.rules(false)); err != nil {
		return nil, nil, fmt.Errorf("restart from the commit: %w", err)
	}
	return written, codecs, a.committed(ctx, group)
}

// leave ends a member in good order: it commits and leaves.
func (a *attempt) leave(c *client) error {
	if err := c.stdin.Close(); err != nil {
		return err
	}
	return c.wait(a.deadline())
}

// await waits for a condition until the step's deadline; an error ends it.
func (a *attempt) await(what string, holds func() (bool, error)) error {
	var err error
	waited := harness.Eventually(a.deadline(), func() bool {
		var ok bool
		ok, err = holds()
		return ok || err != nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case waited != nil:
		return fmt.Errorf("%s: %w (%s)", what, errDeadline, a.deadline())
	}
	return nil
}

// distinct counts the records that came, by what is in them: one that is in the log twice,
// since its producer tried again, is not two of those that were written.
func distinct(records []record) int {
	seen := make(map[string]bool, len(records))
	for _, r := range records {
		seen[r.value] = true
	}
	return len(seen)
}

// shared reports whether the group is stable and two members have all partitions
// between them, as DescribeGroups says.
func (a *attempt) shared(ctx context.Context, group string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cl, err := a.judge()
	if err != nil {
		return false, err
	}
	defer cl.Close()
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{group}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil || len(resp.Groups) != 1 {
		return false, nil // a coordinator may be moving: ask again until the deadline
	}
	g := resp.Groups[0]
	if kerr.ErrorForCode(g.ErrorCode) != nil || g.State != "Stable" || len(g.Members) != 2 {
		return false, nil
	}
	owned := 0
	for _, m := range g.Members {
		var as kmsg.ConsumerMemberAssignment
		if err := as.ReadFrom(m.MemberAssignment); err != nil {
			return false, fmt.Errorf("assignment of member %q: %w", m.MemberID, err)
		}
		mine := 0
		for _, t := range as.Topics {
			mine += len(t.Partitions)
		}
		if mine == 0 {
			return false, nil
		}
		owned += mine
	}
	return owned == partitions, nil
}

// committed checks that the group's committed offsets are the ends of the partitions.
func (a *attempt) committed(ctx context.Context, group string) error {
	ctx, cancel := context.WithTimeout(ctx, a.deadline())
	defer cancel()
	cl, err := a.judge()
	if err != nil {
		return err
	}
	defer cl.Close()
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = group
	t := kmsg.NewOffsetFetchRequestTopic()
	t.Topic = a.topic
	for p := range int32(partitions) {
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	gt := kmsg.NewOffsetFetchRequestGroupTopic()
	gt.Topic, gt.Partitions = a.topic, t.Partitions
	g.Topics = append(g.Topics, gt)
	req.Groups = append(req.Groups, g)
	got := map[int32]int64{}
	// With an error the answer says nothing: a node may have just started. Without one it counts.
	err = a.await("OffsetFetch answers", func() (bool, error) {
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return false, nil
		}
		failed := resp.ErrorCode != 0
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				failed = failed || p.ErrorCode != 0
				got[p.Partition] = p.Offset
			}
		}
		for _, g := range resp.Groups {
			failed = failed || g.ErrorCode != 0
			for _, t := range g.Topics {
				for _, p := range t.Partitions {
					failed = failed || p.ErrorCode != 0
					got[p.Partition] = p.Offset
				}
			}
		}
		return !failed, nil
	})
	if err != nil {
		return err
	}
	ends, err := a.ends(ctx)
	if err != nil {
		return err
	}
	for p, end := range ends {
		// A partition that no key fell into may have no commit at all.
		if got[p] != end && (end != 0 || got[p] != -1) {
			return fmt.Errorf("the group has committed offset %d of partition %d, which ends at %d", got[p], p, end)
		}
	}
	return nil
}

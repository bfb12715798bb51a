package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/test/harness"
)

// kadmRow is franz-go's admin client, which Go tools and web interfaces are built on.
func kadmRow() row {
	return row{name: "kadm", version: "1.19.0", mode: "default", quick: true, needsGroups: true, run: kadmTool,
		prepare: func(*preparer, context.Context, row) (program, error) { return program{}, nil }}
}

// kadmTool asks for everything kadm can show, and changes what can be changed.
func kadmTool(ctx context.Context, a *attempt) error {
	ctx, cancel := context.WithTimeout(ctx, a.step)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(a.bootstrap(a.way, nil), ",")...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer cl.Close()
	adm, topic := kadm.NewClient(cl), harness.Topic("kadm")
	group := topic + "-group"
	steps := []struct {
		name string
		do   func() error
	}{
		{"CreateTopic", func() error {
			made, err := adm.CreateTopic(ctx, 3, 3, map[string]*string{"retention.ms": kadm.StringPtr("100000")}, topic)
			return is(err, made.NumPartitions == 3 && made.ReplicationFactor == 3, made)
		}},
		{"CreateTopic again", func() error {
			again, err := adm.CreateTopic(ctx, 3, 3, nil, topic)
			return is(nil, err != nil, again)
		}},
		{"ListTopics", func() error {
			list, err := adm.ListTopics(ctx, topic)
			return is(err, list.Has(topic) && len(list[topic].Partitions) == 3, list)
		}},
		{"ListBrokers", func() error {
			list, err := adm.ListBrokers(ctx)
			return is(err, len(list) == 1, list)
		}},
		{"Produce", func() error {
			var failed error
			for i := range 300 {
				r := kgo.StringRecord(fmt.Sprint("line ", i))
				r.Topic, r.Partition = topic, int32(i%3)
				cl.Produce(ctx, r, func(_ *kgo.Record, err error) { failed = errors.Join(failed, err) })
			}
			return errors.Join(cl.Flush(ctx), failed)
		}},
		{"ListEndOffsets", func() error {
			list, err := adm.ListEndOffsets(ctx, topic)
			return is(err, sum(list) == 300, list)
		}},
		{"ListOffsetsAfterMilli", func() error {
			list, err := adm.ListOffsetsAfterMilli(ctx, time.Now().Add(-time.Hour).UnixMilli(), topic)
			return is(err, sum(list) == 0, list)
		}},
		{"ListMaxTimestampOffsets", func() error {
			list, err := adm.ListMaxTimestampOffsets(ctx, topic)
			return is(err, list.Error() == nil, list)
		}},
		{"CommitAllOffsets", func() error {
			var at kadm.Offsets
			for p := range int32(3) {
				at.AddOffset(topic, p, 10, -1)
			}
			return adm.CommitAllOffsets(ctx, group, at)
		}},
		{"Lag", func() error {
			lags, err := adm.Lag(ctx, group)
			return is(err, lags.Error() == nil && lags[group].Lag.Total() == 270, lags)
		}},
		{"ListGroups, DescribeGroups", func() error {
			list, err := adm.ListGroups(ctx)
			described, err2 := adm.DescribeGroups(ctx, group)
			return is(errors.Join(err, err2, described.Error()), list[group].Group == group && described[group].State == "Empty", described)
		}},
		{"FindGroupCoordinators", func() error {
			found := adm.FindGroupCoordinators(ctx, group, topic)
			return is(found.Error(), len(found) == 2, found)
		}},
		{"DeleteOffsets", func() error {
			var s kadm.TopicsSet
			s.Add(topic, 1)
			deleted, err := adm.DeleteOffsets(ctx, group, s)
			return errors.Join(err, deleted.Error())
		}},
		{"FetchOffsets", func() error {
			offsets, err := adm.FetchOffsets(ctx, group)
			return is(err, len(offsets[topic]) == 2, offsets)
		}},
		{"DeleteGroup", func() error {
			_, err := adm.DeleteGroup(ctx, group)
			return err
		}},
		{"AlterTopicConfigs, DescribeTopicConfigs", func() error {
			altered, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("200000")}}, topic)
			if err == nil && len(altered) == 1 {
				err = altered[0].Err
			}
			configs, err2 := adm.DescribeTopicConfigs(ctx, topic)
			if err := errors.Join(err, err2); err != nil {
				return err
			}
			changed := slices.ContainsFunc(configs[0].Configs, func(c kadm.Config) bool { return c.Key == "retention.ms" && c.MaybeValue() == "200000" })
			return is(nil, changed, configs)
		}},
		{"DescribeBrokerConfigs", func() error {
			configs, err := adm.DescribeBrokerConfigs(ctx, 1)
			return is(err, len(configs) == 1 && len(configs[0].Configs) > 10, configs)
		}},
		{"ListConfigResources", func() error {
			list, err := adm.ListConfigResources(ctx)
			return is(err, len(list.Resources) >= 3, list)
		}},
		{"DescribeAllLogDirs", func() error {
			var s kadm.TopicsSet
			s.Add(topic)
			dirs, err := adm.DescribeAllLogDirs(ctx, s)
			return is(errors.Join(err, dirs[1].Error()), len(dirs) == 1, dirs)
		}},
		{"UpdatePartitions", func() error {
			updated, err := adm.UpdatePartitions(ctx, 5, topic)
			return errors.Join(err, updated.Error())
		}},
		{"DeleteRecords", func() error {
			var to kadm.Offsets
			to.AddOffset(topic, 0, 5, -1)
			deleted, err := adm.DeleteRecords(ctx, to)
			starts, err2 := adm.ListStartOffsets(ctx, topic)
			return is(errors.Join(err, deleted.Error(), err2), sum(starts) == 5, starts)
		}},
		{"OffsetForLeaderEpoch", func() error {
			var r kadm.OffsetForLeaderEpochRequest
			r.Add(topic, 0, 1)
			ends, err := adm.OffsetForLeaderEpoch(ctx, r)
			return is(err, len(ends) == 1, ends)
		}},
		{"DescribeProducers", func() error {
			var s kadm.TopicsSet
			s.Add(topic, 0)
			_, err := adm.DescribeProducers(ctx, s)
			return err
		}},
		{"ListPartitionReassignments", func() error {
			list, err := adm.ListPartitionReassignments(ctx, nil)
			return is(err, len(list) == 0, list)
		}},
		{"DescribeClientQuotas, DescribeUserSCRAMs", func() error {
			quotas, err := adm.DescribeClientQuotas(ctx, false, nil)
			users, err2 := adm.DescribeUserSCRAMs(ctx)
			return is(errors.Join(err, err2), len(quotas) == 0 && len(users) == 0, quotas)
		}},
		{"DescribeACLs, AlterPartitionAssignments", func() error {
			acls, err := adm.DescribeACLs(ctx, kadm.NewACLs().AnyResource().ResourcePatternType(kadm.ACLPatternAny).Allow().AllowHosts().Operations(kadm.OpAny))
			// the one broker that there is, and none
			var one, another kadm.AlterPartitionAssignmentsReq
			one.Assign(topic, 0, []int32{1})
			another.Assign(topic, 0, []int32{2})
			taken, err2 := adm.AlterPartitionAssignments(ctx, one)
			refused, err3 := adm.AlterPartitionAssignments(ctx, another)
			return is(errors.Join(err, err2, err3, taken.Error()), len(acls) == 1 && errors.Is(acls[0].Err, kerr.SecurityDisabled) &&
				errors.Is(refused.Error(), kerr.InvalidReplicaAssignment), []any{acls, refused})
		}},
		{"ApiVersions", func() error {
			versions, err := adm.ApiVersions(ctx)
			return is(err, len(versions) == 1, versions)
		}},
		{"DeleteTopic", func() error {
			_, err := adm.DeleteTopic(ctx, topic)
			return err
		}},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// is gives the error, or one that shows what was answered when that is not right.
func is(err error, right bool, answered any) error {
	if err != nil || right {
		return err
	}
	return fmt.Errorf("answered %.300s", fmt.Sprintf("%+v", answered))
}

func sum(list kadm.ListedOffsets) (total int64) {
	list.Each(func(o kadm.ListedOffset) { total += max(o.Offset, 0) })
	return total
}

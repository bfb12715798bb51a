package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/test/harness"
)

// compacting is how nodes are started on which topics are compacted while a client looks.
var compacting = harness.Options{NodeArgs: append([]string{"--log-retention-check-interval", "1s"}, soon...)}

// onCompacting gives a row a cluster of its own whose leaders look every second for what is to be
// compacted.
func onCompacting(run func(context.Context, *attempt) error) func(context.Context, *attempt) error {
	return func(ctx context.Context, a *attempt) error {
		if a.against != "" {
			return run(ctx, a)
		}
		end, err := a.ownCluster(compacting)
		if err != nil {
			return err
		}
		return errors.Join(run(ctx, a), end())
	}
}

// compactionTesterVersion is the newest whose tests' jar has kafka.tools.LogCompactionTester.
const compactionTesterVersion = "4.0.1"

func compactionTesterRow() row {
	return row{name: "kafka-log-compaction-tester", version: compactionTesterVersion, mode: "default", needsGroups: true,
		prepare: (*preparer).compactionTester, run: onCompacting(compactionTester)}
}

func (p *preparer) compactionTester(ctx context.Context, r row) (program, error) {
	if err := need("java", "mvn", "sort"); err != nil {
		return program{}, err
	}
	dir, err := p.once("compactiontester-"+r.version, []string{"compactiontester/pom.xml"}, []string{r.version}, func(dir string) error {
		return maven(ctx, dir, "-Dkafka.version="+r.version)
	})
	return program{command: []string{"java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", filepath.Join(dir, "lib", "*")}}, err
}

// testerRows is how many records Kafka's checker writes to each of its topics, testerTimes how
// often a key comes among them.
const (
	testerRows  = 50_000
	testerTimes = 5
)

// compactionTester is Kafka's own check of compaction: it writes records, a tenth of them
// tombstones, and holds what it reads after a while against what it wrote, key by key. It makes its
// topics itself, so that their settings come a moment later; and most of the records must be gone.
func compactionTester(ctx context.Context, a *attempt) error {
	cl, err := kgo.NewClient(harness.Seeds(a.driverAddr)...)
	if err != nil {
		return err
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	looking, stop := context.WithCancel(ctx)
	set := make(chan error, 1)
	go func() { set <- compactTopics(looking, admin, "log-cleaner-test-", 2) }()
	out, err := a.tool(ctx, "", "kafka.tools.LogCompactionTester", "--bootstrap-server", a.bootstrap(a.way, nil),
		"--messages", strconv.Itoa(testerRows), "--duplicates", strconv.Itoa(testerTimes), "--topics", "2",
		"--percent-deletes", "10", "--sleep", "15", "--compression-type", "lz4")
	stop()
	if err := errors.Join(err, <-set); err != nil {
		return err
	}
	if !strings.Contains(out, "Data verification is completed") {
		return fmt.Errorf("it does not say that it verified anything: %.300q", out)
	}
	said := regexp.MustCompile(`(\d+) rows of data produced, (\d+) rows of data consumed`).FindStringSubmatch(out)
	if said == nil {
		return fmt.Errorf("it does not say what is left: %.300q", out)
	}
	wrote, _ := strconv.Atoi(said[1])
	left, _ := strconv.Atoi(said[2])
	if left > wrote/2 {
		return fmt.Errorf("%d of %d records are left, of which one in %d is a key's last", left, wrote, testerTimes)
	}
	a.note("%d of %d records were left", left, wrote)
	return nil
}

// compactTopics waits until there are so many topics whose names begin so, and has them compacted
// at once and all the time. When ctx ends before, that is an error.
func compactTopics(ctx context.Context, admin *kadm.Client, start string, count int) error {
	for {
		names, err := admin.ListTopics(ctx)
		var found []string
		for name := range names {
			if strings.HasPrefix(name, start) {
				found = append(found, name)
			}
		}
		if err == nil && len(found) >= count {
			return compactAtOnce(ctx, admin, found...)
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return errors.Join(fmt.Errorf("%d of %d topics called %s* came", len(found), count, start), err)
		}
	}
}

// compactAtOnce has compacted topics compacted a second after each record.
func compactAtOnce(ctx context.Context, admin *kadm.Client, topics ...string) error {
	value := func(s string) *string { return &s }
	done, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "segment.bytes", Value: value("1048576")},
		{Op: kadm.SetConfig, Name: "min.cleanable.dirty.ratio", Value: value("0.01")},
		{Op: kadm.SetConfig, Name: "max.compaction.lag.ms", Value: value("1000")},
	}, topics...)
	for _, d := range done {
		err = errors.Join(err, d.Err)
	}
	return err
}

// untilCompacted waits until no key of the topics has an older record, and reports an error where
// no record went: then nothing was tried.
func (a *attempt) untilCompacted(ctx context.Context, topics ...string) error {
	for _, topic := range topics {
		var read compactedRead
		err := a.await(topic+" is compacted", func() (bool, error) {
			var err error
			read, err = a.readCompacted(ctx, topic)
			return read.records == read.keys, err
		})
		if err != nil {
			return fmt.Errorf("%w (%+v)", err, read)
		}
		if read.keys == 0 || read.gone == 0 {
			return fmt.Errorf("%s: nothing was compacted: %+v", topic, read)
		}
		a.note("of %s %d records are gone, %d are left", topic[strings.LastIndexByte(topic, '-')+1:], read.gone, read.records)
	}
	return nil
}

// compactedRead is what is in a topic. What is gone are offsets without a record: markers of
// transactions are among them.
type compactedRead struct{ records, keys, gone int }

// readCompacted reads a topic from the start to its end. What leads on where no record is left is
// in the headers of batches alone, so it fetches by itself.
func (a *attempt) readCompacted(ctx context.Context, topic string) (read compactedRead, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.deadline())
	defer cancel()
	cl, err := kgo.NewClient(harness.Seeds(a.driverAddr)...)
	if err != nil {
		return read, err
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	details, err := admin.ListTopics(ctx, topic)
	if err = errors.Join(err, details.Error()); err != nil {
		return read, err
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err = errors.Join(err, ends.Error()); err != nil {
		return read, err
	}
	keys := map[string]bool{}
	for _, p := range details[topic].Partitions {
		for at := int64(0); at < ends[topic][p.Partition].Offset; {
			records, next, err := fetchOnce(ctx, cl, details[topic].ID, p, at)
			if err != nil {
				return read, fmt.Errorf("%s-%d, offset %d: %w", topic, p.Partition, at, err)
			}
			left := 0
			for _, r := range records {
				if !r.Attrs.IsControl() {
					left++
					keys[fmt.Sprintf("%d %s", r.Partition, r.Key)] = true
				}
			}
			read.records, read.gone = read.records+left, read.gone+int(next-at)-left
			at = next
		}
	}
	read.keys = len(keys)
	return read, nil
}

// fetchOnce gives the records from an offset on that one answer of the leader has, and the offset
// behind them.
func fetchOnce(ctx context.Context, cl *kgo.Client, id kadm.TopicID, p kadm.PartitionDetail, at int64) ([]*kgo.Record, int64, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 1000, 1, 1<<20
	topic, partition := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
	partition.Partition, partition.FetchOffset, partition.PartitionMaxBytes = p.Partition, at, 1<<20
	topic.Topic, topic.TopicID = p.Topic, id
	topic.Partitions = append(topic.Partitions, partition)
	req.Topics = append(req.Topics, topic)
	answer, err := cl.Broker(int(p.Leader)).Request(ctx, req)
	if err != nil {
		return nil, at, err
	}
	resp := answer.(*kmsg.FetchResponse)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, at, fmt.Errorf("the answer has %d topics", len(resp.Topics))
	}
	got := &resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
		return nil, at, err
	}
	opts := kgo.ProcessFetchPartitionOpts{KeepControlRecords: true, Offset: at, Topic: p.Topic, Partition: p.Partition}
	read, next := kgo.ProcessFetchPartition(opts, got, kgo.DefaultDecompressor(), nil)
	if next <= at && read.Err == nil {
		read.Err = errors.New("the answer leads no further")
	}
	return read.Records, next, read.Err
}

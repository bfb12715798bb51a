package commands

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Backups are made while producers commit transactions to six partitions of two topics: each says
// that transactions are whole in it, and where the last one is restored all partitions have the
// same ones.
func TestBackupsWhileTransactionsRun(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	source := harness.New(t, harness.Options{NoShim: true})
	bin, place := program(t, "trimaran"), "file://"+t.TempDir()
	for _, topic := range []string{"bills", "orders"} {
		harness.Need(t, source.CreateTopic(ctx, topic, 3, 3))
	}
	from := command{env: []string{"TRIMARAN_BROKERS=" + strings.Join(source.Addrs(), ",")}}
	over, stop := context.WithCancel(ctx)
	defer stop()
	var producers sync.WaitGroup
	var mu sync.Mutex
	longest, commits := time.Duration(0), 0
	for i := range 4 {
		cl, err := kgo.NewClient(kgo.SeedBrokers(source.Addrs()...), kgo.TransactionalID(fmt.Sprint("whole-", i)), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		harness.Need(t, err)
		defer cl.Close()
		producers.Go(func() {
			for n := 0; over.Err() == nil; n++ {
				if err := oneTransaction(ctx, cl, fmt.Sprintf("%d/%d", i, n), func(took time.Duration) {
					mu.Lock()
					defer mu.Unlock()
					longest, commits = max(longest, took), commits+1
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 6 {
		var made struct {
			ID, Torn string
			Whole    bool
		}
		harness.Need(t, json.Unmarshal([]byte(from.ok(t, bin, "backup", "create", "--to", place, "--json")), &made))
		if !made.Whole {
			t.Errorf("%s may be torn: %s", made.ID, made.Torn)
		}
	}
	stop()
	producers.Wait()
	t.Logf("%d transactions were committed; no commit took longer than %v", commits, longest)
	contains(t, "backup list", from.ok(t, bin, "backup", "list", "--from", place), "whole")
	for _, n := range source.Nodes {
		harness.Need(t, n.Kill9())
	}

	target := harness.New(t, harness.Options{NoShim: true, NodeArgs: []string{"--auto-create-topics=false"}})
	to := command{env: []string{"TRIMARAN_BROKERS=" + strings.Join(target.Addrs(), ",")}}
	to.ok(t, bin, "backup", "restore", "--from", place)
	first := valuesIn(ctx, t, target, "bills", 0)
	if len(first) == 0 {
		t.Error("no transaction is in the backup")
	}
	for p := range int32(6) {
		topic := []string{"bills", "orders"}[p%2]
		got := valuesIn(ctx, t, target, topic, p/2)
		for value := range first {
			if !got[value] {
				t.Errorf("transaction %s is not in partition %d of %s", value, p/2, topic)
			}
		}
		if len(got) != len(first) {
			t.Errorf("partition %d of %s has %d transactions, another one %d", p/2, topic, len(got), len(first))
		}
	}
}

// A node is killed while commits are held, by somebody who never lets go: producers go on when the
// time is over, and all that they were told is committed is there. So with each node.
func TestANodeIsKilledWhileCommitsAreHeld(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	c := harness.New(t, harness.Options{NoShim: true})
	for _, topic := range []string{"bills", "orders"} {
		harness.Need(t, c.CreateTopic(ctx, topic, 3, 3))
	}
	over, stop := context.WithCancel(ctx)
	defer stop()
	var producers sync.WaitGroup
	var mu sync.Mutex
	longest, committed := time.Duration(0), map[string]bool{}
	for i := range 4 {
		cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.TransactionalID(fmt.Sprint("held-", i)), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		harness.Need(t, err)
		defer cl.Close()
		producers.Go(func() {
			for n := 0; over.Err() == nil; n++ {
				value := fmt.Sprintf("%d/%d", i, n)
				err := oneTransaction(ctx, cl, value, func(took time.Duration) {
					mu.Lock()
					defer mu.Unlock()
					longest, committed[value] = max(longest, took), true
				})
				if err != nil && ctx.Err() == nil {
					t.Logf("%s: %v", value, err)
					_ = cl.EndTransaction(ctx, kgo.TryAbort)
				}
			}
		})
	}
	for i, n := range c.Nodes {
		harness.Need(t, holdCommits(c.Nodes[(i+1)%3].Addr()))
		mu.Lock()
		before := len(committed)
		mu.Unlock()
		harness.Need(t, n.Kill9())
		harness.Need(t, n.Start())
		harness.Need(t, c.WaitReady(time.Minute))
		harness.Need(t, harness.Eventually(time.Minute, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(committed) > before+8
		}))
	}
	stop()
	producers.Wait()
	t.Logf("%d transactions were committed; no commit took longer than %v", len(committed), longest)
	for p := range int32(6) {
		topic := []string{"bills", "orders"}[p%2]
		got := valuesIn(ctx, t, c, topic, p/2)
		for value := range committed {
			if !got[value] {
				t.Errorf("transaction %s is not in partition %d of %s", value, p/2, topic)
			}
		}
	}
}

// holdCommits has a cluster hold commits, as a backup does that dies then. It asks until they are.
func holdCommits(addr string) error {
	const text = `{"op":"hold"}`
	request := binary.BigEndian.AppendUint16(nil, 21590) // the API of backups
	request = append(request, 0, 0, 0, 0, 0, 1, 0, 1, 't')
	request = append(binary.BigEndian.AppendUint32(request, uint32(len(text))), text...)
	request = append(binary.BigEndian.AppendUint32(nil, uint32(len(request))), request...)
	var wrong error
	for range 20 {
		conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			return err
		}
		if _, err := conn.Write(request); err != nil {
			return err
		}
		var size [4]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return err
		}
		answer := make([]byte, min(binary.BigEndian.Uint32(size[:]), 1<<20))
		if _, err := io.ReadFull(conn, answer); err != nil {
			return err
		}
		if strings.Contains(string(answer), `"holds"`) {
			return nil
		}
		wrong = errors.New(string(answer))
	}
	return wrong
}

// oneTransaction writes a value to all partitions and commits, which takes a time.
func oneTransaction(ctx context.Context, cl *kgo.Client, value string, committed func(time.Duration)) error {
	if err := cl.BeginTransaction(); err != nil {
		return err
	}
	var records []*kgo.Record
	for p := range int32(3) {
		for _, topic := range []string{"bills", "orders"} {
			records = append(records, &kgo.Record{Topic: topic, Partition: p, Value: []byte(value)})
		}
	}
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return err
	}
	began := time.Now()
	if err := cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return err
	}
	committed(time.Since(began))
	return nil
}

// valuesIn gives the committed records of a partition.
func valuesIn(ctx context.Context, t *testing.T, c *harness.Cluster, topic string, partition int32) map[string]bool {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}))
	harness.Need(t, err)
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	harness.Need(t, err)
	end, _ := ends.Lookup(topic, partition)
	values := map[string]bool{}
	for next := int64(0); next < end.Offset; { // with a marker
		fetches := cl.PollFetches(ctx)
		harness.Need(t, ctx.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			if next = r.Offset + 1; !r.Attrs.IsControl() {
				values[string(r.Value)] = true
			}
		})
	}
	return values
}

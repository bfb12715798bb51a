package gateway

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

// inTransaction gives a batch of one record of a producer, and a marker of it.
func inTransaction(producer int64, value string) kafkaproto.Batch {
	return prototest.Of(prototest.Batch(value), producer, 0, 0, true)
}

func markerOf(producer int64, commit bool) kafkaproto.Batch {
	return kafkaproto.NewMarker(kafkaproto.Marker{Commit: commit}, producer, 0, 1)
}

// Offsets 0 and 1 are of producers 1 and 2, which abort at 3 and 2; 4 and 6 are of producer 3,
// which commits at 7; 5 is of producer 4, whose transaction is open, 8 of none.
func transactionsOf(t *testing.T, f *fakeCluster) fsm.PartitionID {
	t.Helper()
	id := f.id("events", 0)
	for _, batch := range []kafkaproto.Batch{
		inTransaction(1, "a"), inTransaction(2, "b"), markerOf(2, false), markerOf(1, false),
		inTransaction(3, "c"), inTransaction(4, "d"), inTransaction(3, "e"), markerOf(3, true), prototest.Batch("f"),
	} {
		if _, err := f.doAppend(id, []kafkaproto.Batch{batch}); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

func TestFetchHasIsolationLevels(t *testing.T) {
	f := newFake(t, "events:1")
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
		id := transactionsOf(t, f)
		c := &client{p.dial(), t}
		defer c.Close()
		fetch := func(version int16, isolation int8, from int64, wait time.Duration) kmsg.FetchResponseTopicPartition {
			t.Helper()
			req := fetchOf("events", 0, from, wait, 1, 10000)
			req.Version, req.IsolationLevel, req.MaxBytes = version, isolation, 1<<20
			req.Topics[0].Partitions[0].CurrentLeaderEpoch = -1
			if version >= 13 {
				req.Topics[0].Topic, req.Topics[0].TopicID = "", id.Topic
			}
			return c.do(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]
		}
		// end is where the batches end.
		end := func(part kmsg.FetchResponseTopicPartition) (next int64) {
			for batch := range kafkaproto.Batches(part.RecordBatches) {
				next = batch.Header().NextOffset()
			}
			return next
		}
		for version := int16(4); version <= 18; version++ {
			got := fetch(version, 1, 0, 0)
			if got.ErrorCode != 0 || end(got) != 5 || got.HighWatermark != 9 || got.LastStableOffset != 5 || len(got.AbortedTransactions) != 2 ||
				got.AbortedTransactions[0].ProducerID != 1 || got.AbortedTransactions[0].FirstOffset != 0 ||
				got.AbortedTransactions[1].ProducerID != 2 || got.AbortedTransactions[1].FirstOffset != 1 {
				t.Errorf("version %d: %+v", version, got)
			}
			if got := fetch(version, 0, 0, 0); end(got) != 9 || got.LastStableOffset != 5 || len(got.AbortedTransactions) != 0 {
				t.Errorf("version %d, uncommitted: %+v", version, got)
			}
			if got := fetch(version, 1, 5, 0); got.ErrorCode != 0 || len(got.RecordBatches) != 0 || got.LastStableOffset != 5 {
				t.Errorf("version %d, at the last stable offset: %+v", version, got)
			}
			if got := fetch(version, 2, 0, 0); got.ErrorCode != 42 {
				t.Errorf("version %d, isolation 2: %+v", version, got)
			}
		}
		// Old versions see records of all transactions, and no markers.
		for _, version := range []int16{0, 1, 2, 3} {
			if got := fetch(version, 0, 0, 0); len(values(t, got.RecordBatches)) != 6 {
				t.Errorf("version %d: %q", version, values(t, got.RecordBatches))
			}
			// All that is small enough is markers: it goes on behind them.
			req := fetchOf("events", 0, 2, 0, 1, 100)
			req.Version, req.MaxBytes = version, 1<<20
			got := c.do(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]
			if b := got.RecordBatches; got.ErrorCode != 0 || len(b) < 8 || binary.BigEndian.Uint64(b) != 4 {
				t.Errorf("version %d, from a marker on: %+v", version, got)
			}
		}
		// Records wake nobody who waits at an open transaction; its marker does.
		began := time.Now()
		woken := make(chan kmsg.FetchResponseTopicPartition, 1)
		go func() { woken <- fetch(11, 1, 5, time.Minute) }()
		time.Sleep(time.Second)
		if _, err := f.doAppend(id, []kafkaproto.Batch{prototest.Batch("g")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, err := f.doAppend(id, []kafkaproto.Batch{markerOf(4, false)}); err != nil {
			t.Fatal(err)
		}
		got := <-woken
		if took := time.Since(began); took != 2*time.Second || end(got) != 11 || len(got.AbortedTransactions) != 1 || got.AbortedTransactions[0].FirstOffset != 5 {
			t.Errorf("after %v: %+v", took, got)
		}
	})
}

func TestListOffsetsHasIsolationLevels(t *testing.T) {
	f := newFake(t, "events:1")
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
		transactionsOf(t, f)
		c := &client{p.dial(), t}
		defer c.Close()
		list := func(version int16, isolation int8, timestamp int64) kmsg.ListOffsetsResponseTopicPartition {
			req := kmsg.NewPtrListOffsetsRequest()
			req.Version, req.IsolationLevel, req.ReplicaID = version, isolation, -1
			part := kmsg.NewListOffsetsRequestTopicPartition()
			part.Timestamp, part.CurrentLeaderEpoch = timestamp, -1
			topic := kmsg.NewListOffsetsRequestTopic()
			topic.Topic, topic.Partitions = "events", []kmsg.ListOffsetsRequestTopicPartition{part}
			req.Topics = append(req.Topics, topic)
			return c.do(req).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
		}
		for version := int16(2); version <= 10; version++ {
			for isolation, want := range map[int8]int64{0: 9, 1: 5} {
				if got := list(version, isolation, -1); got.ErrorCode != 0 || got.Offset != want {
					t.Errorf("version %d, isolation %d, latest: %+v", version, isolation, got)
				}
				if got := list(version, isolation, -2); got.ErrorCode != 0 || got.Offset != 0 {
					t.Errorf("version %d, isolation %d, earliest: %+v", version, isolation, got)
				}
			}
			if got := list(version, 2, -1); got.ErrorCode != 42 {
				t.Errorf("version %d, isolation 2: %+v", version, got)
			}
		}
	})
}

// What is in a tier is asked of the leader, once all nodes know such questions; before that nothing
// is tiered.
func TestListOffsetsOfATier(t *testing.T) {
	for _, level := range []int{fsm.LevelTiers - 1, fsm.LevelTiers} {
		f := newFakeAt(t, level, "events:1")
		f.offsets = func(_ context.Context, _ fsm.PartitionID, timestamp int64, _ int) ([]fsm.Offset, error) {
			return []fsm.Offset{fsm.Offset(100 - timestamp)}, nil
		}
		inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
			c := &client{p.dial(), t}
			defer c.Close()
			for which, test := range map[int64]struct {
				since          int16
				before, offset int64 // before LevelTiers, and then
			}{-2: {1, 102, 102}, -4: {8, 102, 104}, -5: {9, -1, 105}, -6: {11, -1, 106}} {
				for version := max(test.since-1, 1); version <= 11; version++ {
					req := kmsg.NewPtrListOffsetsRequest()
					req.Version, req.ReplicaID = version, -1
					part := kmsg.NewListOffsetsRequestTopicPartition()
					part.Timestamp, part.CurrentLeaderEpoch = which, -1
					topic := kmsg.NewListOffsetsRequestTopic()
					topic.Topic, topic.Partitions = "events", []kmsg.ListOffsetsRequestTopicPartition{part}
					req.Topics = append(req.Topics, topic)
					got := c.do(req).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
					want, code := test.offset, int16(0)
					if level < fsm.LevelTiers {
						want = test.before
					}
					if version < test.since {
						want, code = -1, 35
					}
					if got.Offset != want || got.ErrorCode != code {
						t.Errorf("level %d, version %d, %d: %+v, want %d", level, version, which, got, want)
					}
				}
			}
		})
	}
}

// Markers in front of the first record that an old version sees are many where transactions are
// ended that have no records here any more: what was read of them is not held on to.
func TestMarkersThatAreSkippedAreLetGo(t *testing.T) {
	f := newFake(t, "events:1")
	held, most := 0, 0
	f.read = func(_ context.Context, p fsm.PartitionID, from fsm.Offset, maxBytes int) (fsm.Slice, error) {
		slice, err := f.doRead(p, from, maxBytes)
		if held++; held > most {
			most = held
		}
		slice.Done = func() { held-- }
		return slice, err
	}
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
		id := f.id("events", 0)
		for range 20 {
			if _, err := f.doAppend(id, []kafkaproto.Batch{markerOf(1, true)}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.doAppend(id, []kafkaproto.Batch{prototest.Batch("a")}); err != nil {
			t.Fatal(err)
		}
		c := &client{p.dial(), t}
		defer c.Close()
		req := fetchOf("events", 0, 0, 0, 1, 100)
		req.Version, req.MaxBytes = 2, 1<<20
		got := c.do(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]
		if b := got.RecordBatches; got.ErrorCode != 0 || len(b) < 8 || binary.BigEndian.Uint64(b) != 20 {
			t.Errorf("%+v", got)
		}
		if most != 1 || held != 0 {
			t.Errorf("of what was read %d were held at once, %d in the end", most, held)
		}
	})
}

// One fetch of an old version reads a bounded part of a region that has nothing it can see, is
// answered at once, and the next one goes on behind that: each marker is read once.
func TestManyMarkersArePassedInSteps(t *testing.T) {
	const markers = 3 * passBytes / 78
	for _, version := range []int16{0, 2, 3} {
		f := newFake(t, "events:1")
		var batches []byte
		for i := range int64(markers) {
			b := markerOf(1, true)
			b.Stamp(i, 1)
			batches = append(batches, b.Bytes()...)
		}
		one := len(batches) / markers
		last := prototest.Batch("a")
		last.Stamp(markers, 1)
		there, read := false, 0
		f.read = func(_ context.Context, p fsm.PartitionID, from fsm.Offset, maxBytes int) (s fsm.Slice, err error) {
			s.HighWatermark = markers
			switch {
			case from < markers:
				end := min(int(from)+max(maxBytes/one, 1), markers)
				s.Batches = batches[int(from)*one : end*one]
			case there:
				s.Batches = last.Bytes()
			}
			if there {
				s.HighWatermark++
			}
			read += len(s.Batches)
			return s, nil
		}
		inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
			c := &client{p.dial(), t}
			defer c.Close()
			fetch := func(wait time.Duration) kmsg.FetchResponseTopicPartition {
				t.Helper()
				req := fetchOf("events", 0, 0, wait, 1, 1000)
				req.Version, req.MaxBytes = version, 1<<20
				got := c.do(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]
				if got.ErrorCode != 0 || got.HighWatermark < markers {
					t.Fatalf("version %d: %+v", version, got)
				}
				return got
			}
			steps := 0
			for ; read < len(batches) && steps < 100; steps++ {
				before, began := read, time.Now()
				got := fetch(time.Minute)
				if step := read - before; step > passBytes+leanRead || len(got.RecordBatches) != 0 || read < len(batches) && time.Since(began) > 0 {
					t.Errorf("version %d: a fetch read %d bytes and gave %d, after %s", version, step, len(got.RecordBatches), time.Since(began))
				}
			}
			if steps < 3 || steps > 4 {
				t.Errorf("version %d: %d steps", version, steps)
			}
			fetch(0)
			if read != len(batches) {
				t.Errorf("version %d: %d bytes were read of %d", version, read, len(batches))
			}
			there = true
			if b := fetch(0).RecordBatches; len(b) < 8 || binary.BigEndian.Uint64(b) != markers {
				t.Errorf("version %d: the record behind them: %x", version, b)
			}
			// Another connection knows nothing of it, and gets there as well.
			other := &client{p.dial(), t}
			defer other.Close()
			c = other
			for i := 0; len(fetch(0).RecordBatches) == 0; i++ {
				if i > 4 {
					t.Fatalf("version %d: another connection does not get there", version)
				}
			}
		})
	}
}

// TestPassedPartitionsAreBounded: a connection remembers a bounded number of partitions.
func TestPassedPartitionsAreBounded(t *testing.T) {
	f := &fetch{version: 2}
	for i := range int32(2 * maxPassed) {
		f.parts = append(f.parts, &fetchPart{id: fsm.PartitionID{Partition: i}, from: 1, passed: 9, out: &kmsg.FetchResponseTopicPartition{}})
	}
	var m passed
	if m.note(f); len(m) != maxPassed {
		t.Errorf("%d are remembered", len(m))
	}
	for id, want := range map[fsm.Offset]fsm.Offset{1: 9, 2: 2, 0: 0} {
		for p := range m {
			if got := m.begin(f, p, id); got != want {
				t.Errorf("asked for %d it begins at %d", id, got)
			}
			if got := m.begin(&fetch{version: 4}, p, id); got != id {
				t.Errorf("version 4, asked for %d, begins at %d", id, got)
			}
		}
	}
}

// TestAbortedTransactionsOfAnswersAreCounted: what an answer says of them is memory like its
// records. Where there is none left partitions come in later answers, and the first one with its
// first batch.
func TestAbortedTransactionsOfAnswersAreCounted(t *testing.T) {
	const partitions, rows = 20, 10_000
	f := newFake(t, "events:20")
	f.read = func(_ context.Context, _ fsm.PartitionID, from fsm.Offset, maxBytes int) (s fsm.Slice, err error) {
		s.HighWatermark = rows + 100
		for i := range fsm.Offset(3) {
			b := inTransaction(1, "a")
			b.Stamp(int64(from+i), 1)
			s.Batches = append(s.Batches, b.Bytes()...)
		}
		// a third of them reaches over the first record, the others begin at the second
		for i := range fsm.Offset(rows) {
			s.Aborted = append(s.Aborted, fsm.AbortedTransaction{ProducerID: int64(i), First: from + min(i/(rows/3), 1), Last: from + 100 + i})
		}
		return s, nil
	}
	const memory = 4 << 20
	inBubble(t, func(cfg *Config) { cfg.Cluster, cfg.MaxInflightBytes, cfg.MaxRequestBytes = f, memory, memory }, func(t *testing.T, p *pipes, s *Server) {
		c := &client{p.dial(), t}
		defer c.Close()
		req := fetchOf("events", 0, 0, 0, 1, 1000)
		req.Version, req.IsolationLevel, req.MaxBytes = 11, 1, 100<<20
		req.Topics[0].Partitions = nil
		for i := range int32(partitions) {
			part := kmsg.NewFetchRequestTopicPartition()
			part.Partition, part.PartitionMaxBytes, part.CurrentLeaderEpoch = i, 1<<20, -1
			req.Topics[0].Partitions = append(req.Topics[0].Partitions, part)
		}
		// fetch gives how many partitions have records, and all aborted transactions and batches.
		fetch := func() (with, aborted, batches int) {
			t.Helper()
			for _, part := range c.do(req).(*kmsg.FetchResponse).Topics[0].Partitions {
				if part.ErrorCode != 0 || (len(part.RecordBatches) == 0) != (len(part.AbortedTransactions) == 0) {
					t.Fatalf("partition %d: code %d, %d bytes, %d aborted", part.Partition, part.ErrorCode, len(part.RecordBatches), len(part.AbortedTransactions))
				}
				if len(part.RecordBatches) > 0 {
					with++
				}
				aborted += len(part.AbortedTransactions)
				for range kafkaproto.Batches(part.RecordBatches) {
					batches++
				}
			}
			return with, aborted, batches
		}
		with, aborted, batches := fetch()
		if with < 2 || with == partitions || aborted != rows*with || batches != 3*with || abortedCost*aborted > memory {
			t.Errorf("%d partitions with %d aborted transactions and %d batches, and memory for %d", with, aborted, batches, memory/abortedCost)
		}
		c.do(metadataOf("events")) // the fetch is sent
		if held := s.answerBytes.Held(); held != 0 {
			t.Errorf("%d bytes are held for answers", held)
		}
		if !s.answerBytes.Try(memory) {
			t.Fatal("no memory")
		}
		if with, aborted, batches := fetch(); with != 1 || batches != 1 || aborted != rows/3 {
			t.Errorf("without memory %d partitions with %d aborted transactions and %d batches", with, aborted, batches)
		}
		s.answerBytes.Release(memory)
	})
}

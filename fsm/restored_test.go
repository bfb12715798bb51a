package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
	"github.com/trimaran-io/trimaran/outcome"
)

func at(b kafkaproto.Batch, base int64, epoch int32) []byte {
	b = b.Clone()
	b.Stamp(base, epoch)
	return b.Bytes()
}

// marked gives the extensions of an entry with restored batches.
func marked(data []byte) []byte {
	h, err := kafkaproto.ParseBatchHeader(data)
	if err != nil {
		panic(err)
	}
	return RestoredExtensions(h)
}

// What is restored keeps its offsets, wherever they are, and leaves no producer behind but those
// with a transaction open; what is no restored entry is judged as ever.
func TestRestoredEntries(t *testing.T) {
	p := NewPartitionAt(100)
	if restored, err := RestorePartition(p.Snapshot()); err != nil || restored.NextOffset() != 100 || restored.LogStart() != 100 || restored.LastApplied() != 1 {
		t.Fatalf("%+v, %v", restored, err)
	}
	index := Index(1)
	apply := func(data []byte, marks []byte) Applied {
		index++
		return p.Apply(Entry{Index: index, Term: 60, AppendedAt: 1, Data: data, Extensions: marks})
	}
	two := prototest.Batch("a", "b")
	if r := apply(at(two, 100, 7), nil); !errors.Is(r.Err, outcome.ErrVoid) {
		t.Errorf("an older epoch in an entry that is not restored: %v", r.Err)
	}
	for _, step := range []struct {
		name  string
		data  []byte
		next  Offset
		known int
		open  int
	}{
		{"an older epoch", at(two, 100, 7), 102, 0, 0},
		{"behind a hole", at(prototest.Of(two, 4, 0, 9, false), 200, 8), 202, 0, 0},
		{"in a transaction", at(prototest.Of(two, 5, 3, 2, true), 210, 8), 212, 1, 1},
		{"that is committed", at(kafkaproto.NewMarker(kafkaproto.Marker{Commit: true, CoordinatorEpoch: 3}, 5, 3, 0), 213, 9), 214, 0, 0},
		{"in another one", at(prototest.Of(two, 6, 0, 0, true), 214, 9), 216, 1, 1},
	} {
		r := apply(step.data, marked(step.data))
		if r.Err != nil || r.Breach != nil || p.NextOffset() != step.next || len(p.Producers()) != step.known || p.OpenTransactions() != step.open {
			t.Errorf("%s: %v, %v, next %d, %d producers, %d open", step.name, r.Err, r.Breach, p.NextOffset(), len(p.Producers()), p.OpenTransactions())
		}
	}
	if p.LastStable() != 214 {
		t.Errorf("stable up to %d", p.LastStable())
	}
	for name, data := range map[string][]byte{"below the end": at(two, 215, 9), "an epoch to come": at(two, 300, 61), "an offset that is too large": at(two, math.MaxInt64>>1-1, 9)} {
		if r := apply(data, marked(data)); !errors.Is(r.Err, outcome.ErrVoid) && !errors.Is(r.Err, outcome.ErrCorruptMessage) || p.NextOffset() != 216 {
			t.Errorf("%s: %v", name, r.Err)
		}
	}
	for name, marks := range map[string][]byte{"another epoch than its entry says": marked(at(two, 216, 8)), "none": {1, 9, 0, 0, 0}} {
		if r := apply(at(two, 216, 9), marks); r.Err == nil || p.NextOffset() != 216 {
			t.Errorf("%s: %v", name, r.Err)
		}
	}
	before := p.LastApplied()
	if r := apply(at(two, 216, 60), []byte{2}); !errors.Is(r.Err, ErrNewer) || p.LastApplied() != before {
		t.Errorf("an entry that is marked otherwise: %v", r.Err)
	}
}

// A batch whose records are compacted away is no part of a transaction: the marker may be gone,
// too. What is kept with segments says the same as the machine.
func TestARestoredBatchOfNothingOpensNoTransaction(t *testing.T) {
	p := NewPartitionAt(0)
	var x TransactionIndex
	empty, kept, err := prototest.Of(prototest.Batch("a"), 5, 0, 0, true).Retain(func(kafkaproto.Record) bool { return false })
	if err != nil || kept != 0 {
		t.Fatal(err)
	}
	for i, b := range []kafkaproto.Batch{empty, prototest.Of(prototest.Batch("b"), 6, 0, 0, true)} {
		data := at(b, int64(10*i), 3)
		before := p.NextOffset()
		if r := p.Apply(Entry{Index: Index(2 + i), Term: 9, Data: data, Extensions: marked(data)}); r.Err != nil {
			t.Fatal(r.Err)
		}
		x.Add(data, StampOf(9, marked(data)), before)
	}
	if open := p.Open(); len(open) != 1 || open[0].ProducerID != 6 || len(x.Open) != 1 || x.Open[0].ProducerID != 6 {
		t.Errorf("open are %+v, and %+v", p.Open(), x.Open)
	}
}

// An entry may be marked with anything, and hold anything: what the machine makes of it is what
// those who read the log again do.
func FuzzRestoredEntry(f *testing.F) {
	two := at(prototest.Of(prototest.Batch("a", "b"), 5, 0, 0, true), 300, 2)
	f.Add(uint64(2), marked(two), two)
	f.Add(uint64(1<<40+2), marked(two), two)
	f.Add(uint64(2), marked(two)[:12], two)
	f.Add(uint64(2), []byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, two)
	f.Add(uint64(2), marked(two), append(two, at(kafkaproto.NewMarker(kafkaproto.Marker{}, 5, 0, 0), 305, 2)...))
	f.Add(uint64(2), marked(two), kafkaproto.NewEmpty(300, 100, 2).Bytes())
	f.Fuzz(func(t *testing.T, term uint64, extensions, data []byte) {
		p, before := samplePartition(), samplePartition()
		r := p.Apply(Entry{Index: 200, Term: Term(term), AppendedAt: 1, Data: data, Extensions: extensions})
		if err := p.check(); err != nil {
			t.Fatal(err)
		}
		if errors.Is(r.Err, ErrNewer) {
			if p.applied != before.applied {
				t.Fatal("an entry of a newer program was applied")
			}
			return
		}
		x := before.Transactions()
		if next := x.Add(data, StampOf(term, extensions), before.NextOffset()); IsRecords(data) && next != p.NextOffset() {
			t.Fatalf("the machine comes to %d, a reader to %d", p.NextOffset(), next)
		}
		made, kept := x, p.Transactions()
		if IsRecords(data) && !bytes.Equal(made.Bytes(), kept.Bytes()) {
			t.Fatalf("the machine knows %+v, a reader %+v", kept, made)
		}
		if p.NextOffset() < before.NextOffset() || p.NextOffset() > maxRestored {
			t.Fatalf("the next offset is %d", p.NextOffset())
		}
	})
}

// The catalog keeps what is said of a restore, and refuses what no partition can be.
func TestRestoringTopics(t *testing.T) {
	c := NewCatalog()
	index := Index(0)
	apply := func(command CatalogCommand) CatalogResult {
		index++
		return c.Apply(index, command.Encode())
	}
	node := Node{ID: "n1", Incarnation: "00000000", FeatureLevel: FeatureLevel}
	topic := func(id byte, change func(*Topic)) CatalogCommand {
		made := Topic{
			Name: fmt.Sprint("t", id), ID: TopicID{id}, ReplicationFactor: 1, Origin: "a backup", Restoring: true,
			Partitions: []Partition{{Replicas: []NodeID{"n1"}, Bootstrap: []NodeID{"n1"}, Begin: &Begin{Offset: 5, Term: 7}}},
		}
		if change != nil {
			change(&made)
		}
		return CatalogCommand{CreateTopic: &CreateTopic{Topic: made}}
	}
	for _, command := range []CatalogCommand{{FormCluster: &FormCluster{ClusterID: "c", Nodes: []Node{node}}}, {RegisterNode: &node}} {
		if r := apply(command); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if r := apply(topic(1, nil)); !errors.Is(r.Err, outcome.ErrFeatureLevel) {
		t.Errorf("below the level: %v", r.Err)
	}
	if r := apply(CatalogCommand{RaiseFeatureLevel: &RaiseFeatureLevel{FeatureLevel: FeatureLevel}}); r.Err != nil {
		t.Fatal(r.Err)
	}
	for name, change := range map[string]func(*Topic){
		"an offset below 0":            func(t *Topic) { t.Partitions[0].Begin.Offset = -1 },
		"term 0":                       func(t *Topic) { t.Partitions[0].Begin.Term = 0 },
		"a term without room":          func(t *Topic) { t.Partitions[0].Begin.Term = 1 << 31 },
		"it does not say from what":    func(t *Topic) { t.Origin = "" },
		"it says so in too many words": func(t *Topic) { t.Origin = string(make([]byte, 300)) },
	} {
		if r := apply(topic(1, change)); r.Err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if r := apply(topic(1, nil)); r.Err != nil {
		t.Fatal(r.Err)
	}
	if r := apply(CatalogCommand{EndRestore: &EndRestore{Topic: TopicID{9}}}); !errors.Is(r.Err, outcome.ErrUnknownTopicOrPartition) {
		t.Errorf("the end of what is not there: %v", r.Err)
	}
	for range 2 {
		if r := apply(CatalogCommand{EndRestore: &EndRestore{Topic: TopicID{1}, Producers: 12345}}); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	again, err := RestoreCatalog(c.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	kept, _ := again.View().ByID(TopicID{1})
	if kept.Restoring || kept.Origin != "a backup" || *kept.Partitions[0].Begin != (Begin{5, 7}) || again.View().ProducerFloor() != 12346 {
		t.Errorf("%+v, producers from %d on", kept, again.View().ProducerFloor())
	}
	if r := apply(CatalogCommand{AllocateProducerIDs: &AllocateProducerIDs{Count: 10}}); r.FirstProducerID != 12346 {
		t.Errorf("producer id %d is handed out", r.FirstProducerID)
	}
}

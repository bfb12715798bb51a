package fsm

import (
	"fmt"
	"testing"
)

// What a replica spends per entry beside Raft and the disk.
func BenchmarkPartitionApply(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			p := NewPartition()
			batch := newBatch(0, 100, size, 1, 'x')
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := range b.N {
				fillHeader(batch, p.NextOffset(), 100, 1)
				if r := p.Apply(Entry{Index: Index(i) + 1, Term: 1, Data: batch}); r.Err != nil {
					b.Fatal(r.Err)
				}
			}
		})
	}
}

// Creating one topic more beside a thousand others.
func BenchmarkCreateTopic(b *testing.B) {
	c := sampleCatalog()
	create := func(i int) {
		id := TopicID{0: byte(i >> 16), 1: byte(i >> 8), 2: byte(i), 3: 1}
		topic := Topic{Name: fmt.Sprintf("t%d", i), ID: id, ReplicationFactor: 1, Partitions: []Partition{{Replicas: []NodeID{"n1"}, Bootstrap: []NodeID{"n1"}}}}
		if r := c.Apply(Index(100+2*i), CatalogCommand{CreateTopic: &CreateTopic{topic}}.Encode()); r.Err != nil {
			b.Fatal(r.Err)
		}
	}
	for i := range 1000 {
		create(i)
	}
	for i := range b.N {
		create(1000 + i)
		c.Apply(Index(101+2*(1000+i)), CatalogCommand{DeleteTopic: &DeleteTopic{Name: fmt.Sprintf("t%d", 1000+i)}}.Encode())
	}
}

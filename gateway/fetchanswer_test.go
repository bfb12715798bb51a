package gateway

import (
	"bytes"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/kafkaproto"
)

// What is sent in parts is what kmsg writes, in every version.
func TestFetchPartsAreWhatKmsgWrites(t *testing.T) {
	api, _ := kafkaproto.Lookup(1)
	for v := int16(4); v <= api.Max; v++ {
		resp := kmsg.NewPtrFetchResponse()
		resp.Version = v
		for i, records := range [][]byte{nil, {}, []byte("short"), bytes.Repeat([]byte("a"), gatherFrom), bytes.Repeat([]byte("b"), 300_000)} {
			topic := kmsg.NewFetchResponseTopic()
			topic.Topic, topic.TopicID = "topic", [16]byte{1, 2, byte(i)}
			for j := range int32(3) {
				p := kmsg.NewFetchResponseTopicPartition()
				p.Partition, p.ErrorCode, p.HighWatermark, p.LastStableOffset, p.LogStartOffset = j, 7, 1<<40, 1<<41, 1<<42
				p.RecordBatches = records
				switch j {
				case 1:
					p.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
				case 2:
					p.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{{ProducerID: 5, FirstOffset: 6}}
				}
				topic.Partitions = append(topic.Partitions, p)
			}
			resp.Topics = append(resp.Topics, topic)
		}
		h := kafkaproto.Header{Key: 1, Version: v, CorrelationID: 99}
		parts := fetchParts(h, resp)
		got := bytes.Join(parts, nil)
		want := resp.AppendTo(kafkaproto.AppendResponseHeader(make([]byte, 4), h))
		if !bytes.Equal(got[4:], want[4:]) || len(got)-4 != int(got[0])<<24|int(got[1])<<16|int(got[2])<<8|int(got[3]) {
			t.Errorf("v%d: %d bytes, want %d", v, len(got), len(want))
		}
		shared := 0
		for _, p := range parts {
			if len(p) == 300_000 && &p[0] == &resp.Topics[4].Partitions[0].RecordBatches[0] {
				shared++
			}
		}
		if shared != 3 {
			t.Errorf("v%d: %d of 3 batches are sent from where they are", v, shared)
		}
	}
}

package kafkaproto

import (
	"encoding/binary"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// examples has a request of every served API with something in every field
// that any served version knows.
func examples() []kmsg.Request {
	null := (*string)(nil)
	return []kmsg.Request{
		&kmsg.ProduceRequest{Acks: -1, TimeoutMillis: 100, Topics: []kmsg.ProduceRequestTopic{{Topic: "t", Partitions: []kmsg.ProduceRequestTopicPartition{
			{Partition: 1, Records: []byte("records")}, {Partition: 2, Records: nil},
		}}}},
		&kmsg.FetchRequest{ReplicaID: -1, MaxWaitMillis: 1, MinBytes: 2, Topics: []kmsg.FetchRequestTopic{{Topic: "t", Partitions: []kmsg.FetchRequestTopicPartition{
			{Partition: 1, FetchOffset: 2, PartitionMaxBytes: 3, CurrentLeaderEpoch: -1, LastFetchedEpoch: -1, LogStartOffset: -1},
		}}}},
		&kmsg.ListOffsetsRequest{ReplicaID: -1, Topics: []kmsg.ListOffsetsRequestTopic{{Topic: "t", Partitions: []kmsg.ListOffsetsRequestTopicPartition{
			{Partition: 1, Timestamp: -2, MaxNumOffsets: 3, CurrentLeaderEpoch: -1},
		}}}},
		&kmsg.MetadataRequest{Topics: []kmsg.MetadataRequestTopic{{Topic: kmsg.StringPtr("a")}, {Topic: kmsg.StringPtr("b")}}},
		&kmsg.ApiVersionsRequest{ClientSoftwareName: "name", ClientSoftwareVersion: "1"},
		&kmsg.CreateTopicsRequest{TimeoutMillis: 5, ValidateOnly: true, Topics: []kmsg.CreateTopicsRequestTopic{{
			Topic: "t", NumPartitions: -1, ReplicationFactor: -1,
			ReplicaAssignment: []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 0, Replicas: []int32{1, 2}}},
			Configs:           []kmsg.CreateTopicsRequestTopicConfig{{Name: "a", Value: kmsg.StringPtr("b")}, {Name: "c", Value: null}},
		}}},
		&kmsg.DeleteTopicsRequest{TopicNames: []string{"a", "b"}, TimeoutMillis: 5},
	}
}

// Every served API and version decodes to what kmsg encoded, and nothing that
// is cut or has bytes behind its end does.
func TestDecodeRequest(t *testing.T) {
	seen := 0
	for _, req := range examples() {
		api, ok := Lookup(req.Key())
		if !ok {
			t.Fatalf("key %d", req.Key())
		}
		seen++
		for v := api.Min; v <= api.Max; v++ {
			req.SetVersion(v)
			body := req.AppendTo(nil)
			h := Header{Key: req.Key(), Version: v}
			got, err := DecodeRequest(h, body)
			if err != nil {
				t.Fatalf("%s v%d: %v", api.Name, v, err)
			}
			if again := got.AppendTo(nil); string(again) != string(body) || got.GetVersion() != v || reflect.TypeOf(got) != reflect.TypeOf(req) {
				t.Errorf("%s v%d: got %x, want %x", api.Name, v, again, body)
			}
			for n := range body {
				if _, err := DecodeRequest(h, body[:n]); !errors.Is(err, ErrMalformed) {
					t.Fatalf("%s v%d cut to %d of %d bytes: %v", api.Name, v, n, len(body), err)
				}
			}
			if _, err := DecodeRequest(h, append(body, 0)); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s v%d with a byte more: %v", api.Name, v, err)
			}
		}
		for _, v := range []int16{api.Min - 1, api.Max + 1, -1, 32767} {
			if _, err := DecodeRequest(Header{Key: req.Key(), Version: v}, nil); !errors.Is(err, ErrNotServed) {
				t.Errorf("%s v%d: %v", api.Name, v, err)
			}
		}
	}
	if seen != len(Served) {
		t.Errorf("%d examples for %d served APIs", seen, len(Served))
	}
	if _, err := DecodeRequest(Header{Key: 999}, nil); !errors.Is(err, ErrNotServed) {
		t.Error(err)
	}
}

func TestRecordSetsAreNotCopied(t *testing.T) {
	body := examples()[0].AppendTo(nil)
	req, err := DecodeRequest(Header{}, body)
	if err != nil {
		t.Fatal(err)
	}
	records := req.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records
	body[strings.Index(string(body), "records")] = 'R'
	if string(records) != "Records" {
		t.Errorf("%q", records)
	}
}

// kmsg would make a struct for each of the elements that are claimed here.
func TestClaimsWithoutBytesTakeNoMemory(t *testing.T) {
	const size = 2 << 20
	claim := func(prefix []byte, n uint32) []byte {
		return append(binary.BigEndian.AppendUint32(prefix, n), make([]byte, size)...)
	}
	null := claim(nil, size/4)
	for i := 4; i < len(null); i++ {
		null[i] = 0xff // string lengths -1
	}
	for name, c := range map[string]struct {
		key  int16
		body []byte
	}{
		"Metadata, null names":                   {3, null},
		"Metadata, more names than there can be": {3, claim(nil, size/2)},
		"Metadata, a billion names":              {3, claim(nil, 1<<30)},
		"Metadata, length -2":                    {3, claim(nil, 0xfffffffe)},
		"Produce, partitions":                    {0, claim([]byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 't'}, size/2)},
		"Fetch, topics":                          {1, claim(make([]byte, 12), size/3)},
		"DeleteTopics, names":                    {20, claim(nil, size/2)},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := DecodeRequest(Header{Key: c.key}, c.body); !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > 64<<10 {
				t.Errorf("took %d bytes for a body of %d", took, len(c.body))
			}
		})
	}
}

package clients

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/trimaran-io/trimaran/test/harness"
)

// segmentio/kafka-go has two ways to talk. Client with its Transport chooses
// versions by ApiVersions and goes down to Produce v0, Fetch v0 and Metadata v0:
// that works and is tested here. Conn and Reader ask for at least Fetch v2 and
// ListOffsets v1, and Client.ListOffsets for v1: they cannot work with a broker
// that serves version 0 only; TestKafkaGoReaderIsRefused holds what happens then.
func TestKafkaGoClient(t *testing.T) {
	c := harness.Shared(t)
	for _, r := range routes(c) {
		for _, codec := range []struct {
			name string
			c    kafka.Compression
		}{{"none", 0}, {"gzip", kafka.Gzip}, {"snappy", kafka.Snappy}} {
			t.Run(r.name+"/"+codec.name, func(t *testing.T) {
				ctx := testContext(t)
				topic := harness.Topic("kafkago")
				transport := &kafka.Transport{Dial: r.dial}
				defer transport.CloseIdleConnections()
				client := &kafka.Client{Addr: kafka.TCP(r.addr), Transport: transport, Timeout: 20 * time.Second}

				created, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{
					Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 1, ReplicationFactor: 3}},
				})
				if err != nil {
					t.Fatal(err)
				}
				if err := created.Errors[topic]; err != nil {
					t.Fatal(err)
				}

				text := lines(50)
				var records []kafka.Record
				for _, s := range text {
					records = append(records, kafka.Record{Key: kafka.NewBytes([]byte("k")), Value: kafka.NewBytes([]byte(s))})
				}
				produced, err := client.Produce(ctx, &kafka.ProduceRequest{
					Topic: topic, RequiredAcks: kafka.RequireAll, Compression: codec.c, Records: kafka.NewRecordReader(records...),
				})
				if err != nil {
					t.Fatal(err)
				}
				if produced.Error != nil || produced.BaseOffset != 0 {
					t.Fatalf("produce: offset %d, error %v", produced.BaseOffset, produced.Error)
				}

				fetched, err := client.Fetch(ctx, &kafka.FetchRequest{Topic: topic, Offset: 0, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second})
				if err != nil {
					t.Fatal(err)
				}
				if fetched.Error != nil {
					t.Fatal(fetched.Error)
				}
				for i, want := range text {
					rec, err := fetched.Records.ReadRecord()
					if err != nil {
						t.Fatalf("record %d: %v", i, err)
					}
					value, _ := protocol.ReadAll(rec.Value)
					if rec.Offset != int64(i) || string(value) != want {
						t.Fatalf("record %d came as offset %d value %q", i, rec.Offset, value)
					}
				}
				if _, err := fetched.Records.ReadRecord(); !errors.Is(err, io.EOF) {
					t.Fatalf("after the last record: %v", err)
				}
				for i, rec := range readBack(t, c, topic, 0, len(text)) {
					if string(rec.Value) != text[i] {
						t.Fatalf("franz-go reads %q at %d", rec.Value, i)
					}
				}

				deleted, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
				if err != nil {
					t.Fatal(err)
				}
				if err := deleted.Errors[topic]; err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// kafka-go's Writer is built on Client.Produce and works as it is.
func TestKafkaGoWriter(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("kafkago-writer")
	mustCreate(t, c, topic, 3)
	w := &kafka.Writer{Addr: kafka.TCP(c.ShimAddr()), Topic: topic, RequiredAcks: kafka.RequireAll, Balancer: &kafka.RoundRobin{}, BatchTimeout: 5 * time.Millisecond}
	defer w.Close()
	var messages []kafka.Message
	for _, s := range lines(99) {
		messages = append(messages, kafka.Message{Value: []byte(s)})
	}
	if err := w.WriteMessages(testContext(t), messages...); err != nil {
		t.Fatal(err)
	}
	for p := range int32(3) {
		readBack(t, c, topic, p, 33)
	}
}

// Conn, on which Reader is built, says that no version fits, and the broker
// stays unharmed.
func TestKafkaGoReaderIsRefused(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("kafkago-reader")
	mustCreate(t, c, topic, 1)
	conn, err := net.Dial("tcp", c.Node(1).Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	kc := kafka.NewConnWith(conn, kafka.ConnConfig{Topic: topic, Partition: 0})
	kc.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := kc.WriteMessages(kafka.Message{Value: []byte("v")}); err == nil {
		t.Fatal("kafka-go's Conn wrote: docs/operations.md says it cannot, correct it")
	} else {
		t.Logf("kafka-go's Conn says: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	versions, err := kafka.DialContext(ctx, "tcp", c.Node(1).Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer versions.Close()
	if _, err := versions.ApiVersions(); err != nil {
		t.Fatalf("ApiVersions: %v", err)
	}
}

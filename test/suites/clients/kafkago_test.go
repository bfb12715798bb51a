package clients

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/trimaran-io/trimaran/test/harness"
)

// segmentio/kafka-go has two ways to talk: Client with its Transport chooses
// versions by ApiVersions; Conn, on which Reader is built, has versions of its own
// from Fetch 2 and ListOffsets 1 on. Both work.
func TestKafkaGoClient(t *testing.T) {
	c := harness.Shared(t)
	for _, r := range routes(c) {
		for _, codec := range []struct {
			name string
			c    kafka.Compression
		}{{"none", 0}, {"gzip", kafka.Gzip}, {"snappy", kafka.Snappy}, {"lz4", kafka.Lz4}} {
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

// Conn writes, and Reader, at its defaults but for the partition, reads it from the
// start and from a time.
func TestKafkaGoConnAndReader(t *testing.T) {
	c := harness.Shared(t)
	for _, r := range tcpRoutes(c) {
		t.Run(r.name, func(t *testing.T) {
			topic := harness.Topic("kafkago-reader")
			mustCreate(t, c, topic, 1)
			ctx := testContext(t)
			conn, err := kafka.DialLeader(ctx, "tcp", r.addr, topic, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Minute))
			text := lines(60)
			for _, part := range [][]string{text[:20], text[20:]} {
				var messages []kafka.Message
				for _, s := range part {
					messages = append(messages, kafka.Message{Key: []byte("k"), Value: []byte(s), Time: time.Now(), Headers: []kafka.Header{{Key: "h", Value: []byte("x")}}})
				}
				if _, err := conn.WriteMessages(messages...); err != nil {
					t.Fatal(err)
				}
			}
			if first, last, err := conn.ReadOffsets(); err != nil || first != 0 || last != 60 {
				t.Fatalf("offsets %d to %d, %v", first, last, err)
			}
			reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{r.addr}, Topic: topic, Partition: 0, MaxWait: 100 * time.Millisecond})
			defer reader.Close()
			for i, want := range text {
				m, err := reader.ReadMessage(ctx)
				if err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
				if m.Offset != int64(i) || string(m.Value) != want || string(m.Key) != "k" {
					t.Fatalf("message %d came as offset %d key %q value %q", i, m.Offset, m.Key, m.Value)
				}
			}
			if err := reader.SetOffsetAt(ctx, time.Now().Add(-time.Hour)); err != nil || reader.Offset() != 0 {
				t.Errorf("an hour ago is offset %d, %v", reader.Offset(), err)
			}
		})
	}
}

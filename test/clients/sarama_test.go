package clients

import (
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/trimaran-io/trimaran/gateway/shim"
	"github.com/trimaran-io/trimaran/test/harness"
)

// sarama's oldest version is 0.8.2.0; there it speaks version 0 of the four APIs.
func TestSaramaOldest(t *testing.T) {
	c := harness.Shared(t)
	codecs := map[string]sarama.CompressionCodec{
		"none":   sarama.CompressionNone,
		"gzip":   sarama.CompressionGZIP,
		"snappy": sarama.CompressionSnappy,
	}
	for _, r := range routes(c) {
		for name, codec := range codecs {
			t.Run(r.name+"/"+name, func(t *testing.T) {
				cfg := sarama.NewConfig()
				cfg.Version = sarama.V0_8_2_0
				cfg.Producer.Compression = codec
				if r.name == "websocket" {
					cfg.Net.Proxy.Enable = true
					cfg.Net.Proxy.Dialer = &shim.Dialer{}
				}
				saramaRoundTrip(t, c, r.addr, cfg)
			})
		}
	}
}

// sarama at its defaults asks ApiVersions and lowers its versions to what is
// served. See saramaRoundTrip for the two settings that its SyncProducer itself
// asks for.
func TestSaramaDefaults(t *testing.T) {
	c := harness.Shared(t)
	for _, r := range tcpRoutes(c) {
		t.Run(r.name, func(t *testing.T) { saramaRoundTrip(t, c, r.addr, sarama.NewConfig()) })
	}
}

func saramaRoundTrip(t *testing.T, c *harness.Cluster, addr string, cfg *sarama.Config) {
	t.Helper()
	topic := harness.Topic("sarama")
	mustCreate(t, c, topic, 1)
	cfg.Producer.Return.Successes = true // SyncProducer demands it
	cfg.Producer.RequiredAcks = sarama.WaitForAll
	producer, err := sarama.NewSyncProducer([]string{addr}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	const n = 300
	text := lines(n)
	var messages []*sarama.ProducerMessage
	for _, s := range text {
		messages = append(messages, &sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder("k"), Value: sarama.StringEncoder(s)})
	}
	for i := range 10 { // one by one
		_, offset, err := producer.SendMessage(messages[i])
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if offset != int64(i) {
			t.Fatalf("message %d was acknowledged at offset %d", i, offset)
		}
	}
	if err := producer.SendMessages(messages[10:]); err != nil { // in batches
		t.Fatal(err)
	}
	consumer, err := sarama.NewConsumer([]string{addr}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	part, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
	if err != nil {
		t.Fatal(err)
	}
	defer part.Close()
	limit := time.After(30 * time.Second)
	for i := range n {
		select {
		case m := <-part.Messages():
			if m.Offset != int64(i) || string(m.Value) != text[i] || string(m.Key) != "k" {
				t.Fatalf("message %d came as offset %d key %q value %q", i, m.Offset, m.Key, m.Value)
			}
		case <-limit:
			t.Fatalf("%d of %d messages came", i, n)
		}
	}
	for i, r := range readBack(t, c, topic, 0, n) {
		if string(r.Value) != text[i] {
			t.Fatalf("franz-go reads %q at %d, sarama wrote %q", r.Value, i, text[i])
		}
	}
}

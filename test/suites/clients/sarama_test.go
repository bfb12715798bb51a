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

// From version 0.10 on sarama asks ApiVersions. Messages of magic 1, record
// batches, and what it takes by itself, which is 2.8.
func TestSaramaNewer(t *testing.T) {
	c := harness.Shared(t)
	versions := map[string]sarama.KafkaVersion{
		"0.10": sarama.V0_10_0_1, "0.11": sarama.V0_11_0_0, "default": sarama.NewConfig().Version, "newest": sarama.MaxVersion,
	}
	for _, r := range tcpRoutes(c) {
		for name, version := range versions {
			t.Run(r.name+"/"+name, func(t *testing.T) {
				cfg := sarama.NewConfig()
				cfg.Version = version
				saramaRoundTrip(t, c, r.addr, cfg)
			})
		}
	}
}

func TestSaramaCodecs(t *testing.T) {
	c := harness.Shared(t)
	for _, codec := range []sarama.CompressionCodec{sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD} {
		t.Run(codec.String(), func(t *testing.T) {
			cfg := sarama.NewConfig()
			cfg.Producer.Compression = codec
			saramaRoundTrip(t, c, c.Node(1).Addr(), cfg)
		})
	}
	// The LZ4 of 0.9 and 0.10.0 had checksums over the wrong bytes, or magic 1.
	t.Run("lz4 in magic 1", func(t *testing.T) {
		cfg := sarama.NewConfig()
		cfg.Version, cfg.Producer.Compression = sarama.V0_10_0_1, sarama.CompressionLZ4
		saramaRoundTrip(t, c, c.Node(1).Addr(), cfg)
	})
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
	saramaReads(t, addr, topic, cfg, "k", text)
	if cfg.Producer.Compression == sarama.CompressionZSTD {
		return // 0.8 cannot read it
	}
	for i, r := range readBack(t, c, topic, 0, n) {
		if string(r.Value) != text[i] {
			t.Fatalf("franz-go reads %q at %d, sarama wrote %q", r.Value, i, text[i])
		}
	}
}

// saramaReads reads partition 0 from its start with a partition consumer.
func saramaReads(t *testing.T, addr, topic string, cfg *sarama.Config, key string, text []string) {
	t.Helper()
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
	for i, want := range text {
		select {
		case m := <-part.Messages():
			if m.Offset != int64(i) || string(m.Value) != want || string(m.Key) != key {
				t.Fatalf("message %d came as offset %d key %q value %q", i, m.Offset, m.Key, m.Value)
			}
		case <-limit:
			t.Fatalf("%d of %d messages came", i, len(text))
		}
	}
}

package clients

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/twmb/franz-go/pkg/kgo"
)

// franz-go held to 0.8.0: MaxVersions(kversion.V0_8_0()), no idempotent writes.
// It asks for nothing that a broker of 0.8 does not know, not even ApiVersions.
func TestFranzGoHeldTo080(t *testing.T) {
	c := harness.Shared(t)
	codecs := []struct {
		name  string
		codec kgo.CompressionCodec
	}{
		{"none", kgo.NoCompression()},
		{"gzip", kgo.GzipCompression()},
		{"snappy", kgo.SnappyCompression()},
	}
	for _, r := range routes(c) {
		for _, codec := range codecs {
			t.Run(r.name+"/"+codec.name, func(t *testing.T) {
				topic := harness.Topic("franz")
				mustCreate(t, c, topic, 1)
				produceAndConsume(t, topic, append(r.opts(), kgo.ProducerBatchCompression(codec.codec)))
			})
		}
	}
}

// franz-go at its defaults asks ApiVersions first, speaks the newest version that
// both sides know and is an idempotent producer. Every codec, headers and timestamps come
// back, and a client of 0.8 reads what it can: not zstd.
func TestFranzGoDefaults(t *testing.T) {
	c := harness.Shared(t)
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	for _, r := range routes(c) {
		for name, codec := range codecs {
			t.Run(r.name+"/"+name, func(t *testing.T) {
				opts := []kgo.Opt{kgo.SeedBrokers(r.addr), kgo.ProducerBatchCompression(codec)}
				if r.dial != nil {
					opts = append(opts, kgo.Dialer(r.dial))
				}
				topic := harness.Topic("franz-default")
				mustCreate(t, c, topic, 1)
				produceAndConsume(t, topic, opts)
				headersAndTimes(t, topic, opts)
				if name == "zstd" {
					return
				}
				keys, values := sample(1000)
				for i, rec := range readBack(t, c, topic, 0, 1002)[:1000] {
					if !bytes.Equal(rec.Key, keys[i]) || !bytes.Equal(rec.Value, values[i]) {
						t.Fatalf("a client of 0.8 reads key %q value %q at %d", rec.Key, rec.Value, i)
					}
				}
			})
		}
	}
}

// A client of 0.8 writes, one of today reads, and finds by time.
func TestFranzGoReadsWhat080Wrote(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("franz-old-new")
	mustCreate(t, c, topic, 1)
	ctx := testContext(t)
	old, err := kgo.NewClient(append(harness.Old(c.Node(1).Addr()), kgo.ProducerBatchCompression(kgo.GzipCompression()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := old.ProduceSync(ctx, &kgo.Record{Topic: topic, Key: []byte("k"), Value: []byte("old")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	opts := []kgo.Opt{kgo.SeedBrokers(c.Node(2).Addr())}
	headersAndTimes(t, topic, opts)
	got, err := harness.ReadAll(ctx, opts, topic, 0, 3)
	if err != nil || string(got[0].Value) != "old" || string(got[1].Value) != "early" || string(got[2].Value) != "late" {
		t.Fatalf("%v, %v", got, err)
	}
}

// headersAndTimes appends two records with headers and timestamps, and reads them
// from the offset that their times have.
func headersAndTimes(t *testing.T, topic string, opts []kgo.Opt) {
	t.Helper()
	ctx := testContext(t)
	cl, err := kgo.NewClient(append(opts, kgo.DefaultProduceTopic(topic))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	early, late := time.Now().Add(10*time.Minute).Truncate(time.Millisecond), time.Now().Add(20*time.Minute).Truncate(time.Millisecond)
	headers := []kgo.RecordHeader{{Key: "trace", Value: []byte("7")}, {Key: "empty", Value: []byte{}}}
	if err := cl.ProduceSync(ctx,
		&kgo.Record{Value: []byte("early"), Timestamp: early, Headers: headers},
		&kgo.Record{Value: []byte("late"), Timestamp: late, Headers: headers},
	).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for value, at := range map[string]time.Time{"early": early, "late": late} {
		consumer, err := kgo.NewClient(append(opts, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
			topic: {0: kgo.NewOffset().AfterMilli(at.UnixMilli())},
		}))...)
		if err != nil {
			t.Fatal(err)
		}
		fetches := consumer.PollRecords(ctx, 1)
		consumer.Close()
		records := fetches.Records()
		if len(records) != 1 {
			t.Fatalf("from the time of %q: %v", value, fetches.Errors())
		}
		r := records[0]
		if string(r.Value) != value || !r.Timestamp.Equal(at) || len(r.Headers) != 2 || r.Headers[0].Key != "trace" || string(r.Headers[0].Value) != "7" {
			t.Errorf("from the time of %q came %q of %v, headers %v", value, r.Value, r.Timestamp, r.Headers)
		}
	}
}

// Acks 1 and 0 are the other two things a producer can ask for.
func TestFranzGoAcks(t *testing.T) {
	c := harness.Shared(t)
	for name, acks := range map[string]kgo.Acks{"leader": kgo.LeaderAck(), "none": kgo.NoAck()} {
		t.Run(name, func(t *testing.T) {
			topic := harness.Topic("franz-acks")
			mustCreate(t, c, topic, 1)
			ctx := testContext(t)
			cl, err := kgo.NewClient(append(harness.Old(c.Node(1).Addr()), kgo.RequiredAcks(acks))...)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			for i := range 100 {
				if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: fmt.Append(nil, i)}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			for i, r := range readBack(t, c, topic, 0, 100) {
				if string(r.Value) != fmt.Sprint(i) {
					t.Fatalf("offset %d holds %q", i, r.Value)
				}
			}
		})
	}
}

// produceAndConsume sends 1000 records and reads them again with one client.
func produceAndConsume(t *testing.T, topic string, opts []kgo.Opt) {
	t.Helper()
	ctx := testContext(t)
	const n = 1000
	keys, values := sample(n)
	producer, err := kgo.NewClient(append(opts, kgo.DefaultProduceTopic(topic))...)
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	var records []*kgo.Record
	for i := range n {
		records = append(records, &kgo.Record{Key: keys[i], Value: values[i]})
	}
	for i, res := range producer.ProduceSync(ctx, records...) {
		if res.Err != nil {
			t.Fatalf("record %d: %v", i, res.Err)
		}
		if res.Record.Offset != int64(i) {
			t.Fatalf("record %d was acknowledged at offset %d", i, res.Record.Offset)
		}
	}
	got, err := harness.ReadAll(ctx, opts, topic, 0, n)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range got {
		if r.Offset != int64(i) || !bytes.Equal(r.Key, keys[i]) || !bytes.Equal(r.Value, values[i]) {
			t.Fatalf("record %d came back as offset %d key %q value %q", i, r.Offset, r.Key, r.Value)
		}
		if (r.Key == nil) != (keys[i] == nil) {
			t.Fatalf("record %d: a nil key and an empty one are not the same", i)
		}
	}
}

// Command go shows a Go client: franz-go, held to what Kafka 0.8.0 speaks,
// reaches a node over WebSocket by dialing through package shim. It writes a few
// lines to a topic and reads them back.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/trimaran-io/trimaran/gateway/shim"
)

func main() {
	addr := flag.String("gateway", "127.0.0.1:9093", "client port of a node, host:port")
	topic := flag.String("topic", "example-go", "topic, created on first use")
	flag.Parse()
	if err := run(*addr, *topic); err != nil {
		log.Fatal(err)
	}
}

func run(addr, topic string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	dialer := &shim.Dialer{} // ws://; with TLS set, wss://
	client, err := kgo.NewClient(
		kgo.SeedBrokers(addr),
		kgo.Dialer(dialer.DialContext),
		kgo.MaxVersions(kversion.V0_8_0()),
		kgo.DisableIdempotentWrite(), // 0.8 has no producer ids
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.UnknownTopicRetries(20), // the first request creates the topic
	)
	if err != nil {
		return err
	}
	defer client.Close()

	lines := []string{"three hulls", "one boat", "steady in a blow"}
	var last *kgo.Record
	for _, line := range lines {
		last, err = client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(line)}).First()
		if err != nil {
			return fmt.Errorf("produce: %w", err)
		}
		fmt.Printf("produced  offset %d: %s\n", last.Offset, last.Value)
	}

	// Read from the first of the lines just written to the last of them.
	first := last.Offset - int64(len(lines)) + 1
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{
		topic: {last.Partition: kgo.NewOffset().At(first)},
	})
	for next := first; next <= last.Offset; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("consume: %w", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			fmt.Printf("consumed  offset %d: %s\n", r.Offset, r.Value)
			next = r.Offset + 1
		})
	}
	return nil
}

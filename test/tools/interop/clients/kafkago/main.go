// Command kafkago is segmentio/kafka-go in the interop test.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/trimaran-io/trimaran/test/tools/interop/clients/line"
)

func main() {
	call := line.Args()
	ctx := context.Background()
	switch call.Step {
	case "login":
		line.LogIn(func() error {
			conn, err := dialer(call).Dial("tcp", call.Bootstrap[0])
			if err == nil {
				_, err = conn.ReadPartitions(call.Topic)
			}
			return err
		}, func(err error) bool { return errors.Is(err, kafka.SASLAuthenticationFailed) })
	case "create":
		cl := &kafka.Client{Addr: kafka.TCP(call.Bootstrap...), Transport: transport(call)}
		resp, err := cl.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: call.Topic, NumPartitions: call.Number(), ReplicationFactor: 3}}})
		line.Must(err)
		line.Must(resp.Errors[call.Topic])
	case "produce":
		produce(ctx, call)
	case "read":
		read(ctx, call)
	case "group":
		group(ctx, call)
	default:
		line.Must(fmt.Errorf("no step %q", call.Step))
	}
	line.Flush()
}

// mechanism is nil where the client does not log in.
func mechanism(l *line.Login) sasl.Mechanism {
	switch l.Mechanism {
	case "PLAIN":
		return plain.Mechanism{Username: l.User, Password: l.Password}
	case "SCRAM-SHA-256", "SCRAM-SHA-512":
		hash := scram.SHA512
		if l.Mechanism == "SCRAM-SHA-256" {
			hash = scram.SHA256
		}
		m, err := scram.Mechanism(hash, l.User, l.Password)
		line.Must(err)
		return m
	}
	line.Must(fmt.Errorf("kafka-go has no %s", l.Mechanism))
	return nil
}

func transport(call line.Call) kafka.RoundTripper {
	if call.Login == nil {
		return kafka.DefaultTransport
	}
	return &kafka.Transport{TLS: call.Login.TLS(), SASL: mechanism(call.Login)}
}

func dialer(call line.Call) *kafka.Dialer {
	if call.Login == nil {
		return kafka.DefaultDialer
	}
	return &kafka.Dialer{Timeout: 10 * time.Second, DualStack: true, TLS: call.Login.TLS(), SASLMechanism: mechanism(call.Login)}
}

var complaints = log.New(os.Stderr, "", log.Ltime)

func produce(ctx context.Context, call line.Call) {
	codecs := map[string]kafka.Compression{"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}
	codec, is := codecs[call.Argument]
	if !is {
		line.Say("unsupported %s", call.Argument)
		return
	}
	// Without RequiredAcks it does not wait for an answer, and its ten attempts
	// within some seconds are what an election has time for.
	w := &kafka.Writer{Transport: transport(call), Addr: kafka.TCP(call.Bootstrap...), Topic: call.Topic, Balancer: &kafka.Hash{}, Compression: codec,
		RequiredAcks: kafka.RequireAll, MaxAttempts: 100, ErrorLogger: complaints}
	n := 0
	var pending []kafka.Message
	flush := func() {
		line.Must(w.WriteMessages(ctx, pending...))
		n += len(pending)
		pending = pending[:0]
	}
	line.Records(func(key, value []byte) {
		pending = append(pending, kafka.Message{Key: key, Value: value, Headers: []kafka.Header{{Key: line.HeaderName, Value: []byte(line.HeaderValue)}}})
		if len(pending) == 2500 {
			flush()
		}
	})
	if len(pending) > 0 {
		flush()
	}
	line.Must(w.Close())
	line.Say("produced %d", n)
}

func show(m kafka.Message) {
	headers := ""
	for _, h := range m.Headers {
		headers += h.Key + "=" + string(h.Value)
	}
	line.Print(int32(m.Partition), m.Offset, m.Key, m.Value, headers)
}

func read(ctx context.Context, call line.Call) {
	conn, err := dialer(call).Dial("tcp", call.Bootstrap[0])
	line.Must(err)
	partitions, err := conn.ReadPartitions(call.Topic)
	line.Must(err)
	all := make(chan kafka.Message, 1000)
	for _, p := range partitions {
		r := kafka.NewReader(kafka.ReaderConfig{Dialer: dialer(call), Brokers: call.Bootstrap, Topic: call.Topic, Partition: p.ID, ErrorLogger: complaints})
		go func() {
			for {
				m, err := r.ReadMessage(ctx)
				line.Must(err)
				all <- m
			}
		}()
	}
	for range call.Number() {
		show(<-all)
	}
}

func group(ctx context.Context, call line.Call) {
	r := kafka.NewReader(kafka.ReaderConfig{Dialer: dialer(call), Brokers: call.Bootstrap, Topic: call.Topic, GroupID: call.Argument, StartOffset: kafka.FirstOffset, ErrorLogger: complaints})
	reading, stop := context.WithCancel(ctx)
	ended := line.Ended()
	go func() { <-ended; stop() }()
	var pending []kafka.Message
	for {
		m, err := r.FetchMessage(reading)
		if errors.Is(err, context.Canceled) {
			break
		}
		line.Must(err)
		show(m)
		line.Flush()
		// A commit for each record would be one request for each.
		if pending = append(pending, m); len(pending) == 100 || r.Lag() == 0 {
			line.Must(commit(ctx, r, pending))
			pending = pending[:0]
		}
	}
	line.Must(commit(ctx, r, pending))
	line.Must(r.Close())
	line.Say("closed")
}

// commit tries again: kafka-go gives back the error of a connection that broke after a few attempts
// within a moment, and connects anew with the next generation.
func commit(ctx context.Context, r *kafka.Reader, messages []kafka.Message) (err error) {
	for range 20 {
		if err = r.CommitMessages(ctx, messages...); err == nil {
			return nil
		}
		time.Sleep(500 * time.Millisecond)
	}
	return err
}

// Command franzgo is franz-go in the interop test.
package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/trimaran-io/trimaran/test/harness"
	"github.com/trimaran-io/trimaran/test/tools/interop/clients/line"
)

func main() {
	call := line.Args()
	opts := []kgo.Opt{kgo.SeedBrokers(call.Bootstrap...)}
	if call.Old() {
		opts = harness.Old(call.Bootstrap...)
	}
	if l := call.Login; l != nil {
		opts = append(opts, kgo.DialTLSConfig(l.TLS()), kgo.SASL(mechanism(l)))
	}
	ctx := context.Background()
	switch call.Step {
	case "login":
		cl := client(opts)
		defer cl.Close()
		line.LogIn(func() error {
			req := kmsg.NewPtrMetadataRequest()
			_, err := req.RequestWith(ctx, cl)
			return err
		}, func(err error) bool {
			// With a token, to hear a reason (RFC 7628) is to it an error of its own.
			return errors.Is(err, kerr.SaslAuthenticationFailed) || strings.Contains(err.Error(), "unexpected data in oauth response")
		})
	case "create":
		create(ctx, call, opts)
	case "produce":
		produce(ctx, call, opts)
	case "read":
		read(ctx, call, opts)
	case "transact":
		transact(ctx, call, opts)
	case "committed":
		read(ctx, call, append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted())))
	case "group":
		group(ctx, call, opts)
	default:
		line.Must(fmt.Errorf("no step %q", call.Step))
	}
	line.Flush()
}

func mechanism(l *line.Login) sasl.Mechanism {
	switch l.Mechanism {
	case "PLAIN":
		return plain.Auth{User: l.User, Pass: l.Password}.AsMechanism()
	case "SCRAM-SHA-256":
		return scram.Auth{User: l.User, Pass: l.Password}.AsSha256Mechanism()
	case "SCRAM-SHA-512":
		return scram.Auth{User: l.User, Pass: l.Password}.AsSha512Mechanism()
	}
	return oauth.Auth{Token: l.Token}.AsMechanism()
}

func client(opts []kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(opts...)
	line.Must(err)
	return cl
}

func create(ctx context.Context, call line.Call, opts []kgo.Opt) {
	cl := client(opts)
	defer cl.Close()
	req := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = call.Topic, int32(call.Number()), 3
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, cl)
	line.Must(err)
	line.Must(kerr.ErrorForCode(resp.Topics[0].ErrorCode))
}

func produce(ctx context.Context, call line.Call, opts []kgo.Opt) {
	codecs := map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}
	codec, is := codecs[call.Argument]
	if !is {
		line.Say("unsupported %s", call.Argument)
		return
	}
	cl := client(append(opts, kgo.ProducerBatchCompression(codec)))
	defer cl.Close()
	var done atomic.Int64
	line.Records(func(key, value []byte) {
		r := &kgo.Record{Topic: call.Topic, Key: key, Value: value}
		if !call.Old() {
			r.Headers = []kgo.RecordHeader{{Key: line.HeaderName, Value: []byte(line.HeaderValue)}}
		}
		cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
			line.Must(err)
			done.Add(1)
		})
	})
	line.Must(cl.Flush(ctx))
	line.Say("produced %d", done.Load())
}

func transact(ctx context.Context, call line.Call, opts []kgo.Opt) {
	cl := client(append(opts, kgo.TransactionalID(call.Argument), kgo.TransactionTimeout(30*time.Second)))
	defer cl.Close()
	line.Transactions(func(records [][2][]byte, commit bool) error {
		if err := cl.BeginTransaction(); err != nil {
			return err
		}
		var all []*kgo.Record
		for _, r := range records {
			all = append(all, &kgo.Record{Topic: call.Topic, Key: r[0], Value: r[1]})
		}
		if err := cl.ProduceSync(ctx, all...).FirstErr(); err != nil {
			return err
		}
		return cl.EndTransaction(ctx, kgo.TransactionEndTry(commit))
	})
}

func show(r *kgo.Record) {
	headers := ""
	for _, h := range r.Headers {
		headers += h.Key + "=" + string(h.Value)
	}
	line.Print(r.Partition, r.Offset, r.Key, r.Value, headers)
}

func read(ctx context.Context, call line.Call, opts []kgo.Opt) {
	cl := client(append(opts, kgo.ConsumeTopics(call.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())))
	defer cl.Close()
	for n := 0; n < call.Number(); {
		f := cl.PollFetches(ctx)
		f.EachError(func(topic string, p int32, err error) { line.Must(fmt.Errorf("%s-%d: %w", topic, p, err)) })
		f.EachRecord(func(r *kgo.Record) { n++; show(r) })
	}
}

func group(ctx context.Context, call line.Call, opts []kgo.Opt) {
	cl := client(append(opts, kgo.ConsumeTopics(call.Topic), kgo.ConsumerGroup(call.Argument),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll()))
	defer cl.Close()
	polling, stop := context.WithCancel(ctx)
	ended := line.Ended()
	go func() { <-ended; stop() }()
	for polling.Err() == nil {
		f := cl.PollRecords(polling, 1000)
		f.EachRecord(show)
		line.Flush()
		line.Must(cl.CommitUncommittedOffsets(ctx))
		cl.AllowRebalance()
	}
	line.Must(cl.LeaveGroupContext(ctx))
	line.Say("closed")
}

// Command sarama is IBM/sarama in the interop test.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"

	"github.com/trimaran-io/trimaran/test/tools/interop/clients/line"
)

func main() {
	call := line.Args()
	sarama.Logger = log.New(os.Stderr, "", log.Ltime)
	conf := sarama.NewConfig()
	if call.Old() {
		conf.Version = sarama.V0_8_2_0
	}
	if l := call.Login; l != nil {
		secure(conf, l)
	}
	switch call.Step {
	case "login":
		line.LogIn(func() error {
			cl, err := sarama.NewClient(call.Bootstrap, conf)
			if err == nil {
				err = cl.Close()
			}
			return err
		}, func(err error) bool { return errors.Is(err, sarama.ErrSASLAuthenticationFailed) })
	case "create":
		admin, err := sarama.NewClusterAdmin(call.Bootstrap, conf)
		line.Must(err)
		line.Must(admin.CreateTopic(call.Topic, &sarama.TopicDetail{NumPartitions: int32(call.Number()), ReplicationFactor: 3}, false))
		line.Must(admin.Close())
	case "produce":
		produce(call, conf)
	case "read":
		read(call, conf)
	case "transact":
		transact(call, conf)
	case "committed":
		conf.Consumer.IsolationLevel = sarama.ReadCommitted
		read(call, conf)
	case "group":
		group(call, conf)
	default:
		line.Must(fmt.Errorf("no step %q", call.Step))
	}
	line.Flush()
}

func secure(conf *sarama.Config, l *line.Login) {
	conf.Net.TLS.Enable, conf.Net.TLS.Config = true, l.TLS()
	conf.Net.SASL.Enable, conf.Net.SASL.Mechanism = true, sarama.SASLMechanism(l.Mechanism)
	conf.Net.SASL.User, conf.Net.SASL.Password = l.User, l.Password
	conf.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: scram.SHA512} }
	if l.Mechanism == sarama.SASLTypeSCRAMSHA256 {
		conf.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: scram.SHA256} }
	}
	conf.Net.SASL.TokenProvider = token(l.Token)
}

// scramClient is SCRAM as sarama's own example has it: by xdg-go/scram.
type scramClient struct {
	hash         scram.HashGeneratorFcn
	conversation *scram.ClientConversation
}

func (c *scramClient) Begin(user, password, authzID string) error {
	client, err := c.hash.NewClient(user, password, authzID)
	if err == nil {
		c.conversation = client.NewConversation()
	}
	return err
}
func (c *scramClient) Step(challenge string) (string, error) { return c.conversation.Step(challenge) }
func (c *scramClient) Done() bool                            { return c.conversation.Done() }

type token string

func (t token) Token() (*sarama.AccessToken, error) {
	return &sarama.AccessToken{Token: string(t)}, nil
}

func produce(call line.Call, conf *sarama.Config) {
	codecs := map[string]sarama.CompressionCodec{"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD}
	codec, is := codecs[call.Argument]
	if !is {
		line.Say("unsupported %s", call.Argument)
		return
	}
	conf.Producer.Compression = codec
	conf.Producer.Return.Successes = true
	// Its default, three times within 0.3 s, does not outlast an election.
	conf.Producer.Retry.Max = 100
	p, err := sarama.NewAsyncProducer(call.Bootstrap, conf)
	line.Must(err)
	// what is not acknowledged yet: closing gives up what is being tried again
	var open sync.WaitGroup
	n := 0
	go func() {
		for range p.Successes() {
			n++
			open.Done()
		}
	}()
	go func() {
		for err := range p.Errors() {
			line.Must(err)
		}
	}()
	line.Records(func(key, value []byte) {
		m := &sarama.ProducerMessage{Topic: call.Topic, Key: sarama.ByteEncoder(key), Value: sarama.ByteEncoder(value)}
		if !call.Old() {
			m.Headers = []sarama.RecordHeader{{Key: []byte(line.HeaderName), Value: []byte(line.HeaderValue)}}
		}
		open.Add(1)
		p.Input() <- m
	})
	open.Wait()
	line.Must(p.Close())
	line.Say("produced %d", n)
}

func transact(call line.Call, conf *sarama.Config) {
	conf.Producer.Transaction.ID, conf.Producer.Transaction.Timeout = call.Argument, 30*time.Second
	conf.Producer.Idempotent, conf.Producer.RequiredAcks, conf.Net.MaxOpenRequests = true, sarama.WaitForAll, 1
	conf.Producer.Return.Successes = true
	conf.Producer.Retry.Max, conf.Producer.Transaction.Retry.Max = 100, 100
	p, err := sarama.NewSyncProducer(call.Bootstrap, conf)
	line.Must(err)
	line.Transactions(func(records [][2][]byte, commit bool) error {
		if err := p.BeginTxn(); err != nil {
			return err
		}
		var all []*sarama.ProducerMessage
		for _, r := range records {
			all = append(all, &sarama.ProducerMessage{Topic: call.Topic, Key: sarama.ByteEncoder(r[0]), Value: sarama.ByteEncoder(r[1])})
		}
		if err := p.SendMessages(all); err != nil {
			return err
		}
		if commit {
			return p.CommitTxn()
		}
		return p.AbortTxn()
	})
	line.Must(p.Close())
}

func show(m *sarama.ConsumerMessage) {
	headers := ""
	for _, h := range m.Headers {
		headers += string(h.Key) + "=" + string(h.Value)
	}
	line.Print(m.Partition, m.Offset, m.Key, m.Value, headers)
}

func read(call line.Call, conf *sarama.Config) {
	c, err := sarama.NewConsumer(call.Bootstrap, conf)
	line.Must(err)
	partitions, err := c.Partitions(call.Topic)
	line.Must(err)
	all := make(chan *sarama.ConsumerMessage, 1000)
	for _, p := range partitions {
		pc, err := c.ConsumePartition(call.Topic, p, sarama.OffsetOldest)
		line.Must(err)
		go func() {
			for m := range pc.Messages() {
				all <- m
			}
		}()
	}
	for range call.Number() {
		show(<-all)
	}
}

// member handles a group's claims.
type member struct{}

func (member) Setup(s sarama.ConsumerGroupSession) error {
	line.Say("assigned %v", s.Claims())
	return nil
}
func (member) Cleanup(s sarama.ConsumerGroupSession) error {
	s.Commit()
	return nil
}

func (member) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	for {
		select {
		case m, ok := <-c.Messages():
			if !ok {
				return nil
			}
			show(m)
			line.Flush()
			s.MarkMessage(m, "")
		case <-s.Context().Done():
			return nil
		}
	}
}

func group(call line.Call, conf *sarama.Config) {
	conf.Consumer.Offsets.Initial = sarama.OffsetOldest
	g, err := sarama.NewConsumerGroup(call.Bootstrap, call.Argument, conf)
	line.Must(err)
	ctx, stop := context.WithCancel(context.Background())
	ended := line.Ended()
	go func() { <-ended; stop() }()
	for ctx.Err() == nil {
		if err := g.Consume(ctx, []string{call.Topic}, member{}); err != nil && !errors.Is(err, context.Canceled) {
			// As its documentation says: a group that lost its coordinator is
			// asked to consume again.
			fmt.Fprintln(os.Stderr, "consume:", err)
			<-time.After(100 * time.Millisecond)
		}
	}
	line.Must(g.Close())
	line.Say("closed")
}

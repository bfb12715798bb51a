package gateway

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/session"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// stuck is an Append that comes back when its context ends, with what the cluster
// says then.
func stuck(ctx context.Context, _ fsm.PartitionID, _ []kafkaproto.Batch) ([]fsm.Appended, error) {
	<-ctx.Done()
	return nil, outcome.ErrUnknownFate
}

// The timeout is the client's; what an append takes longer is not waited for.
func TestProduceTimeout(t *testing.T) {
	f := newFake(t, "events:2")
	f.append = stuck
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
		for _, test := range []struct {
			acks    int16
			timeout int32
			want    time.Duration
		}{
			{-1, 300, 300 * time.Millisecond},
			{-1, 0, 0},
			{-1, -5, 0},
			{1, 300, minAppend}, // in 0.8 the timeout does not concern acks 1
			{1, 8000, 8 * time.Second},
			{-1, 1<<31 - 1, maxWait},
		} {
			conn := p.dial()
			req := produce(test.acks, "events", 0, "x")
			req.TimeoutMillis = test.timeout
			began := time.Now()
			if _, err := conn.Write(encode(1, req)); err != nil {
				t.Fatal(err)
			}
			resp := kmsg.NewPtrProduceResponse()
			(&client{conn, t}).want(1, resp)
			if code := resp.Topics[0].Partitions[0].ErrorCode; code != 7 || time.Since(began) != test.want {
				t.Errorf("acks %d, timeout %d: code %d after %v, want REQUEST_TIMED_OUT after %v", test.acks, test.timeout, code, time.Since(began), test.want)
			}
			conn.Close()
		}
		time.Sleep(maxWait) // what was begun ends
	})
}

// Nothing overtakes an append whose fate is open: the second waits in line until
// the first is over, though the first's client was answered long ago.
func TestNothingOvertakesAnOpenAppend(t *testing.T) {
	f := newFake(t, "events")
	var calls atomic.Int32
	f.append = func(ctx context.Context, p fsm.PartitionID, b []kafkaproto.Batch) ([]fsm.Appended, error) {
		if calls.Add(1) == 1 {
			return stuck(ctx, p, b)
		}
		return f.doAppend(p, b)
	}
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, _ *Server) {
		c := &client{p.dial(), t}
		defer c.Close()
		req := produce(-1, "events", 0, "first")
		req.TimeoutMillis = 100
		began := time.Now()
		c.send(encode(1, req))
		synctest.Wait() // the first is on its way; else they would go together
		c.send(encode(2, produce(-1, "events", 0, "second")))
		resp := kmsg.NewPtrProduceResponse()
		c.want(1, resp)
		if resp.Topics[0].Partitions[0].ErrorCode != 7 || time.Since(began) > time.Second {
			t.Errorf("first: %+v after %v", resp.Topics[0], time.Since(began))
		}
		c.want(2, resp)
		if resp.Topics[0].Partitions[0].ErrorCode != 0 || time.Since(began) < minAppend {
			t.Errorf("second: %+v after %v: before the first was over", resp.Topics[0], time.Since(began))
		}
	})
}

// What was read is appended though its client is gone.
func TestProducesOfAClientThatLeftAreAppended(t *testing.T) {
	f := newFake(t, "events")
	begun := make(chan struct{}, 100)
	proceed := make(chan struct{})
	f.append = func(ctx context.Context, p fsm.PartitionID, b []kafkaproto.Batch) ([]fsm.Appended, error) {
		begun <- struct{}{}
		<-proceed
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return f.doAppend(p, b)
	}
	g := serve(t, f, nil)
	c := g.dial()
	c.send(encode(1, produce(0, "events", 0, "last words")))
	<-begun
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
	close(proceed)
	if err := f.doAwait(t.Context(), f.id("events", 0), 0); err != nil {
		t.Fatal(err)
	}
}

// One request for many partitions: each is a call of its own, and a slow one
// leaves the answers of the others right.
func TestProduceToManyPartitions(t *testing.T) {
	f := newFake(t, "events:50")
	f.append = func(ctx context.Context, p fsm.PartitionID, b []kafkaproto.Batch) ([]fsm.Appended, error) {
		if p.Partition == 7 {
			return nil, outcome.ErrNoLeader
		}
		return f.doAppend(p, b)
	}
	c := serve(t, f, nil).dial()
	req := &kmsg.ProduceRequest{Acks: -1, TimeoutMillis: 1000}
	for i := range int32(50) {
		addProduce(req, "events", i, messageSet("x"))
	}
	resp := c.do(req).(*kmsg.ProduceResponse)
	for i := range int32(50) {
		want := int16(0)
		if i == 7 {
			want = 6
		}
		if p := resp.Topics[i].Partitions[0]; p.Partition != i || p.ErrorCode != want {
			t.Errorf("%d: %+v", i, p)
		}
	}
}

// A panic in an append leaves its fate unknown: the records may be in the log.
func TestPanicInAppendIsUnknownFate(t *testing.T) {
	f := newFake(t, "events")
	f.append = func(context.Context, fsm.PartitionID, []kafkaproto.Batch) ([]fsm.Appended, error) { panic("append") }
	c := serve(t, f, nil).dial()
	for range 2 {
		if p := c.do(produce(-1, "events", 0, "x")).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.ErrorCode != 7 {
			t.Errorf("%+v", p)
		}
	}
}

// A client that sends on and never reads is made to wait, and holds nobody up.
func TestPendingRequestsAreBounded(t *testing.T) {
	f := newFake(t, "events")
	inBubble(t, func(cfg *Config) { cfg.Cluster = f }, func(t *testing.T, p *pipes, s *Server) {
		c := p.dial()
		var sent atomic.Int32
		go func() {
			for i := range int32(10 * session.MaxPending) {
				if _, err := c.Write(encode(i, fetchOf("events", 0, 0, time.Minute, 1, 100))); err != nil {
					return
				}
				sent.Add(1)
			}
		}()
		synctest.Wait()
		if n := sent.Load(); n < session.MaxPending || n > 2*session.MaxPending {
			t.Errorf("%d requests were taken from a client whose first is not answered, want about %d", n, session.MaxPending)
		}
		c.Close()
	})
}

func TestMetadataCreatesTopics(t *testing.T) {
	f := newFake(t, "events")
	proceed := make(chan struct{})
	var created []string
	f.create = func(ctx context.Context, spec fsm.TopicSpec, validateOnly bool) error {
		<-proceed
		if spec.Name == "refused" {
			return fmt.Errorf("%w: collides", outcome.ErrInvalidTopicName)
		}
		created = append(created, spec.Name)
		return f.doCreate(spec, validateOnly)
	}
	inBubble(t, func(cfg *Config) { cfg.Cluster, cfg.AutoCreateTopics = f, true }, func(t *testing.T, p *pipes, _ *Server) {
		c := &client{p.dial(), t}
		defer c.Close()
		code := func(name string) int16 { return c.do(metadataOf(name)).(*kmsg.MetadataResponse).Topics[0].ErrorCode }
		for range 3 {
			if got := code("new"); got != 5 {
				t.Errorf("while it is being created: %d", got)
			}
		}
		if got := code("refused"); got != 5 {
			t.Errorf("while it is being refused: %d", got)
		}
		proceed <- struct{}{}
		proceed <- struct{}{}
		synctest.Wait()
		if got := code("new"); got != 0 || !slices.Equal(created, []string{"new"}) {
			t.Errorf("created: %d, %q", got, created)
		}
		if got := code("refused"); got != 17 {
			t.Errorf("refused: %d, want INVALID_TOPIC_EXCEPTION", got)
		}
		time.Sleep(rememberFailure)
		if got := code("refused"); got != 5 {
			t.Errorf("asked for again much later: %d", got)
		}
		proceed <- struct{}{}
		synctest.Wait()
	})
}

// The node's own defaults hold for topics that do not say.
func TestProduceKeepsToTheNodesDefaults(t *testing.T) {
	f := newFake(t, "events")
	if err := f.CreateTopic(t.Context(), fsm.TopicSpec{Name: "large", Partitions: 1, ReplicationFactor: 3,
		Configs: map[string]string{"max.message.bytes": "1000"}}, false); err != nil {
		t.Fatal(err)
	}
	g := serve(t, f, func(cfg *Config) { cfg.TopicDefaults = map[string]string{"max.message.bytes": "50"} })
	for topic, want := range map[string]int16{"events": 10, "large": 0} {
		resp := g.dial().do(produce(-1, topic, 0, string(make([]byte, 100)))).(*kmsg.ProduceResponse)
		if code := resp.Topics[0].Partitions[0].ErrorCode; code != want {
			t.Errorf("%s: code %d, want %d", topic, code, want)
		}
	}
}

// A bound of 0 lets nothing in.
func TestProduceToATopicThatTakesNothing(t *testing.T) {
	f := newFake(t)
	if err := f.CreateTopic(t.Context(), fsm.TopicSpec{Name: "closed", Partitions: 1, ReplicationFactor: 3,
		Configs: map[string]string{"max.message.bytes": "0"}}, false); err != nil {
		t.Fatal(err)
	}
	c := serve(t, f, nil).dial()
	for v, set := range map[int16][]byte{0: messageSet("a"), 2: messageSet("a"), 9: recordBatch("a")} {
		if out := c.ask(produceAt(v, f, "closed", 0, set)).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; out.ErrorCode != kerr.MessageTooLarge.Code {
			t.Errorf("version %d: code %d", v, out.ErrorCode)
		}
	}
}

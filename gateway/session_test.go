package gateway

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/gateway/shim"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProduceFetchOffsetsMetadata(t *testing.T) {
	g := serve(t, newFake(t, "events:2"), nil)
	c := g.dial()
	for i := range int64(2) {
		resp := c.do(produce(-1, "events", 1, "a", "b")).(*kmsg.ProduceResponse)
		if p := resp.Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != 2*i {
			t.Fatalf("%+v", p)
		}
	}
	fetched := c.do(fetchOf("events", 1, 1, 0, 1, 1000)).(*kmsg.FetchResponse).Topics[0].Partitions[0]
	if got := values(t, fetched.RecordBatches); !slices.Equal(got, []string{"b", "a", "b"}) || fetched.HighWatermark != 4 {
		t.Fatalf("%q, %+v", got, fetched)
	}
	offsets := c.do(&kmsg.ListOffsetsRequest{Topics: []kmsg.ListOffsetsRequestTopic{{Topic: "events", Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Partition: 1, Timestamp: -1, MaxNumOffsets: 1}}}}}).(*kmsg.ListOffsetsResponse)
	if p := offsets.Topics[0].Partitions[0]; p.ErrorCode != 0 || !slices.Equal(p.OldStyleOffsets, []int64{4}) {
		t.Fatalf("%+v", p)
	}
	meta := c.do(metadataOf()).(*kmsg.MetadataResponse)
	if b := meta.Brokers; len(b) != 1 || fmt.Sprintf("%s:%d", b[0].Host, b[0].Port) != g.addr {
		t.Fatalf("%+v", b)
	}
	if len(meta.Topics) != 1 || len(meta.Topics[0].Partitions) != 2 {
		t.Fatalf("%+v", meta.Topics)
	}
}

func (g *gatewayOf) dialWS(header http.Header) (*websocket.Conn, *http.Response, error) {
	ws, resp, err := websocket.DefaultDialer.Dial("ws://"+g.addr+"/", header)
	if err == nil {
		g.t.Cleanup(func() { ws.Close() })
		_ = ws.SetReadDeadline(time.Now().Add(3 * patience))
	}
	return ws, resp, err
}

func TestSameOverWebSocket(t *testing.T) {
	g := serve(t, newFake(t, "events"), nil)
	ws, _, err := g.dialWS(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, shim.NewConn(ws, 0))
	if p := c.do(produce(1, "events", 0, "x")).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != 0 {
		t.Fatalf("%+v", p)
	}
	fetched := c.do(fetchOf("events", 0, 0, 0, 1, 1000)).(*kmsg.FetchResponse).Topics[0].Partitions[0]
	if got := values(t, fetched.RecordBatches); !slices.Equal(got, []string{"x"}) {
		t.Fatalf("%q", got)
	}
	versions := c.do(&kmsg.ApiVersionsRequest{}).(*kmsg.ApiVersionsResponse)
	if len(versions.ApiKeys) < 7 {
		t.Fatalf("%+v", versions)
	}
	if b := c.do(metadataOf()).(*kmsg.MetadataResponse).Brokers[0]; fmt.Sprintf("%s:%d", b.Host, b.Port) != g.addr {
		t.Fatalf("%+v", b)
	}
}

// Answers come in the order of requests, though a long poll in front is ready last.
func TestPipelinedAnswersKeepTheirOrder(t *testing.T) {
	f := newFake(t, "events:2")
	c := serve(t, f, nil).dial()
	var all []byte
	all = append(all, encode(1, fetchOf("events", 0, 0, 200*time.Millisecond, 1, 1000))...)
	for i := range int32(50) {
		all = append(all, encode(2+2*i, produce(-1, "events", 1, fmt.Sprint(i)))...)
		all = append(all, encode(3+2*i, metadataOf("events"))...)
	}
	c.send(all)
	c.want(1, kmsg.NewPtrFetchResponse())
	for i := range int32(50) {
		resp := kmsg.NewPtrProduceResponse()
		c.want(2+2*i, resp)
		if p := resp.Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != int64(i) {
			t.Fatalf("produce %d: %+v", i, p)
		}
		c.want(3+2*i, kmsg.NewPtrMetadataResponse())
	}
}

// One Append at a time per connection and partition; what waits goes together.
func TestProducesOfOnePartitionWaitInLine(t *testing.T) {
	f := newFake(t, "events:2")
	begun, proceed := make(chan fsm.PartitionID, 100), make(chan struct{})
	var mu sync.Mutex
	under := map[fsm.PartitionID]int{}
	f.append = func(ctx context.Context, p fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
		mu.Lock()
		if under[p]++; under[p] > 1 {
			t.Errorf("two appends to %v at once", p)
		}
		mu.Unlock()
		begun <- p
		<-proceed
		mu.Lock()
		under[p]--
		mu.Unlock()
		return f.doAppend(p, batches)
	}
	c := serve(t, f, nil).dial()
	c.send(encode(0, produce(-1, "events", 0, "first")))
	<-begun
	for i := range int32(10) {
		c.send(encode(1+i, produce(-1, "events", 0, fmt.Sprint(i))))
	}
	c.send(encode(11, produce(-1, "events", 1, "another partition")))
	if p := <-begun; p.Partition != 1 {
		t.Fatalf("the second append is to partition %d", p.Partition)
	}
	proceed <- struct{}{}
	proceed <- struct{}{}
	go func() {
		for {
			select {
			case proceed <- struct{}{}:
			case <-t.Context().Done():
				return
			}
		}
	}()
	for i := range int32(12) {
		resp := kmsg.NewPtrProduceResponse()
		c.want(i, resp)
		want := int64(i)
		if i == 11 {
			want = 0
		}
		if p := resp.Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != want {
			t.Fatalf("produce %d: %+v", i, p)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.appends) >= 12 {
		t.Errorf("%d appends: nothing was sent together", len(f.appends))
	}
}

// A fetch that waits answers when its partition grows, not when its time is over.
func TestLongPollWakesOnAppend(t *testing.T) {
	f := newFake(t, "events:3")
	waiting := make(chan fsm.PartitionID, 10)
	f.await = func(ctx context.Context, p fsm.PartitionID, from fsm.Offset) error {
		waiting <- p
		return f.doAwait(ctx, p, from)
	}
	g := serve(t, f, nil)
	reader, writer := g.dial(), g.dial()
	req := fetchOf("events", 0, 0, time.Minute, 1, 1000)
	req.Topics[0].Partitions = append(req.Topics[0].Partitions, kmsg.FetchRequestTopicPartition{Partition: 2, PartitionMaxBytes: 1000})
	reader.send(encode(1, req))
	<-waiting
	<-waiting
	writer.do(produce(-1, "events", 2, "wake"))
	resp := kmsg.NewPtrFetchResponse()
	reader.want(1, resp)
	if got := values(t, resp.Topics[0].Partitions[1].RecordBatches); !slices.Equal(got, []string{"wake"}) {
		t.Fatalf("%q", got)
	}
}

func TestShutdownAnswersWhatWasRead(t *testing.T) {
	f := newFake(t, "events")
	waiting, begun, proceed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	f.await = func(ctx context.Context, p fsm.PartitionID, from fsm.Offset) error {
		close(waiting)
		return f.doAwait(ctx, p, from)
	}
	f.append = func(ctx context.Context, p fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
		close(begun)
		<-proceed
		return f.doAppend(p, batches)
	}
	g := serve(t, f, nil)
	c, idle := g.dial(), g.dial()
	idle.do(metadataOf())
	c.send(encode(1, fetchOf("events", 0, 0, time.Minute, 1, 1000)))
	<-waiting
	c.send(encode(2, produce(-1, "events", 0, "last")))
	<-begun
	done := make(chan error)
	go func() { done <- g.Shutdown(context.Background()) }()
	c.want(1, kmsg.NewPtrFetchResponse())
	idle.closed()
	close(proceed)
	resp := kmsg.NewPtrProduceResponse()
	c.want(2, resp)
	if resp.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Errorf("%+v", resp)
	}
	c.closed()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestHTTPPages(t *testing.T) {
	f := newFake(t, "events")
	g := serve(t, f, nil)
	c := g.dial()
	c.do(produce(-1, "events", 0, "x"))
	f.mu.Lock()
	f.ready = func() error { return fmt.Errorf("the catalog has no leader") }
	f.mu.Unlock()
	for path, want := range map[string]string{
		"/": "200 Trimaran test", "/healthz": "200 ok", "/readyz": "503 the catalog has no leader", "/nothing": "404",
		"/metrics": "200 trimaran_messages_in_total{topic=\"events\"} 1",
	} {
		status, body := g.get(t, path, nil)
		code, text, _ := strings.Cut(want, " ")
		if fmt.Sprint(status) != code || !strings.Contains(body, text) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

func (g *gatewayOf) get(t *testing.T, path string, change func(*http.Request)) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+g.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := resp.Body.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return resp.StatusCode, b.String()
		}
	}
}

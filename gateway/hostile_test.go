package gateway

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
)

// raw makes a frame of any bytes, with its size.
func raw(body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// head is the header of a request with client id null.
func head(key, version int16, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	return append(b, append([]byte{0, 0, 0, 1, 0xff, 0xff}, body...)...)
}

// What cannot be followed ends its connection, and no other, without an answer.
func TestHostileBytesEndTheirConnectionOnly(t *testing.T) {
	g := serve(t, newFake(t, "events"), func(cfg *Config) { cfg.MaxRequestBytes = 1 << 20 })
	other := g.dial()
	for name, b := range map[string][]byte{
		"size 0":                         {0, 0, 0, 0},
		"size 7":                         {0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0},
		"negative size":                  {0x80, 0, 0, 0},
		"size above the limit":           {0, 0x10, 0, 1},
		"not Kafka":                      {0x01, 0x02, 0x03, 0x04, 0x05},
		"a large request of its own API": append([]byte{0, 0x0f, 0xff, 0xff}, append(head(StatusKey, 0), make([]byte, 1<<20)...)[:0xfffff]...),
		"header cut":                     raw(0, 3, 0, 0, 0, 0, 0, 1),
		"client id longer than frame":    raw(0, 3, 0, 0, 0, 0, 0, 1, 0x7f, 0xff),
		"client id of length -2":         raw(0, 3, 0, 0, 0, 0, 0, 1, 0xff, 0xfe),
		"unknown API":                    raw(head(999, 0)...),
		"negative API":                   raw(head(-1, 0)...),
		"version of Fetch not served":    raw(head(1, 4)...),
		"negative version":               raw(head(3, -1)...),
		"array of 2^31-1 topics":         raw(head(3, 0, 0x7f, 0xff, 0xff, 0xff)...),
		"array of -2 topics":             raw(head(3, 0, 0xff, 0xff, 0xff, 0xfe)...),
		"topic name of length -1":        raw(head(3, 0, 0, 0, 0, 1, 0xff, 0xff)...),
		"topic name longer than frame":   raw(head(3, 0, 0, 0, 0, 1, 0x7f, 0xff, 'x')...),
		"bytes after the end":            raw(head(3, 0, 0, 0, 0, 0, 0)...),
		"record set of length -2":        raw(head(0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 'e', 0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe)...),
		"record set longer than frame":   raw(head(0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 'e', 0, 0, 0, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 1)...),
		"Status with a body":             raw(head(StatusKey, 0, 1)...),
		"ReplicaCheck without a body":    raw(head(ReplicaCheckKey, 0)...),
		"ReplicaCheck with a long name":  raw(head(ReplicaCheckKey, 0, 0xff, 0xff, 'e', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)...),
		"ReplicaCheck with more":         raw(head(ReplicaCheckKey, 0, 0, 1, 'e', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9)...),
		"Status in another version":      raw(head(StatusKey, 1)...),
		"ApiVersions 3 with 2^32-1 tags": raw(head(18, 3, 0, 2, 'a', 2, '1', 0xff, 0xff, 0xff, 0xff, 0x0f)...),
	} {
		t.Run(name, func(t *testing.T) {
			c := g.dial()
			c.send(encode(7, metadataOf("events")))
			c.send(b)
			c.want(7, kmsg.NewPtrMetadataResponse()) // what came before is answered
			c.closed()
			other.do(metadataOf("events"))
		})
	}
	c := g.dial()
	c.send(append([]byte{0, 0, 0, 100}, 0, 3))
	if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.closed()
	for line := range strings.Lines(g.logs.String()) {
		if len(line) > 500 {
			t.Errorf("a long line: %s", line)
		}
	}
}

// oneMessage makes one message of magic 0 or 1 with a true CRC.
func oneMessage(attributes byte, value []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(14+len(value)))
	b = append(b, 0, 0, 0, 0, 0, attributes, 0xff, 0xff, 0xff, 0xff)
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(value))), value...)
	binary.BigEndian.PutUint32(b[12:], crc32.ChecksumIEEE(b[16:]))
	return b
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

// changed gives a copy with one byte replaced.
func changed(b []byte, at int, to byte) []byte {
	b = bytes.Clone(b)
	b[at] = to
	return b
}

// A record set that is wrong is an error of its partition alone.
func TestHostileRecordSets(t *testing.T) {
	f := newFake(t, "events:2")
	// What a record set decompresses to is bounded as requests are.
	g := serve(t, f, func(cfg *Config) { cfg.MaxRequestBytes = 4 << 20 })
	good := messageSet("good")
	for name, try := range map[string]struct {
		set  []byte
		code int16
	}{
		"flipped byte":                      {changed(good, len(good)-1, 'x'), 2},
		"flipped CRC":                       {changed(good, 12, good[12]^1), 2},
		"magic 2 in a message":              {changed(good, 16, 2), 2},
		"negative message size":             {changed(good, 8, 0xff), 2},
		"message size of 1":                 {changed(good, 11, 1), 2},
		"key length -2":                     {sealed(changed(good, 21, 0xfe)), 2},
		"key over the value":                {sealed(changed(good, 18, 0x7f)), 2},
		"value over the end":                {sealed(changed(good, 22, 0x7f)), 2},
		"value shorter than the message":    {sealed(changed(good, 25, 1)), 2},
		"gzip that is none":                 {oneMessage(1, []byte("no gzip")), 2},
		"empty gzip":                        {oneMessage(1, gzipped(nil)), 2},
		"gzip of rubbish":                   {oneMessage(1, gzipped([]byte("rubbish rubbish rubbish rubbish"))), 2},
		"gzip in gzip":                      {oneMessage(1, gzipped(oneMessage(1, gzipped(good)))), 2},
		"snappy that is none":               {oneMessage(2, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0}), 2},
		"codec 3 in magic 0":                {oneMessage(3, []byte("lz4")), 2},
		"codec 7":                           {oneMessage(7, []byte("?")), 2},
		"larger than the topic takes":       {oneMessage(0, make([]byte, 2<<20)), 10},
		"a bomb":                            {oneMessage(1, gzipped(oneMessage(0, make([]byte, 8<<20)))), 10},
		"a record batch where 0.8 has none": {make([]byte, 100), 2},
	} {
		t.Run(name, func(t *testing.T) {
			c := g.dial()
			req := produce(-1, "events", 1, "neighbour")
			req.Topics[0].Partitions = append(req.Topics[0].Partitions, kmsg.ProduceRequestTopicPartition{Partition: 0, Records: try.set})
			resp := c.do(req).(*kmsg.ProduceResponse).Topics[0].Partitions
			if resp[0].ErrorCode != 0 {
				t.Errorf("the other partition: %+v", resp[0])
			}
			if resp[1].ErrorCode != try.code || resp[1].BaseOffset != -1 {
				t.Errorf("%+v, want code %d", resp[1], try.code)
			}
		})
	}
	if s, err := f.doRead(f.id("events", 0), 0, 1<<20); err != nil || s.HighWatermark != 0 {
		t.Errorf("something was appended: %+v, %v", s, err)
	}
}

// sealed gives the first message its true CRC.
func sealed(b []byte) []byte {
	binary.BigEndian.PutUint32(b[12:], crc32.ChecksumIEEE(b[16:]))
	return b
}

// acks 0 is never answered; what fails closes the connection, since nothing else
// would tell, and only when what came before is answered.
func TestAcksZero(t *testing.T) {
	f := newFake(t, "events")
	g := serve(t, f, nil)
	c := g.dial()
	c.send(encode(1, produce(0, "events", 0, "unanswered")))
	c.do(metadataOf("events"))
	c.send(encode(2, metadataOf("events")))
	c.send(encode(3, produce(0, "missing", 0, "x")))
	c.send(encode(4, metadataOf("events")))
	c.want(2, kmsg.NewPtrMetadataResponse())
	c.closed()
	if s, err := f.doRead(f.id("events", 0), 0, 1<<20); err != nil || s.HighWatermark != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}

// A panic of whatever is behind a request ends that connection only.
func TestPanicEndsItsConnectionOnly(t *testing.T) {
	f := newFake(t, "events")
	g := serve(t, f, nil)
	f.read = func(context.Context, fsm.PartitionID, fsm.Offset, int) (fsm.Slice, error) { panic("read") }
	f.create = func(context.Context, fsm.TopicSpec, bool) error { panic("create") }
	f.status = func(context.Context) (*admin.Status, error) { panic("status") }
	other := g.dial()
	c := g.dial()
	c.send(encode(1, fetchOf("events", 0, 0, 0, 1, 1000)))
	c.closed()
	c = g.dial()
	c.send(raw(head(StatusKey, 0)...))
	c.closed()
	other.do(metadataOf("created-on-first-use"))
	if p := other.do(produce(-1, "events", 0, "x")).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 {
		t.Errorf("%+v", p)
	}
	if logs := g.logs.String(); !strings.Contains(logs, "panic") || !strings.Contains(logs, "stack") {
		t.Errorf("no word of it: %s", logs)
	}
}

// A client that ends its half still gets its answers; one that goes away lets
// nothing wait for it.
func TestEndOfAConnection(t *testing.T) {
	f := newFake(t, "events")
	waiting, over := make(chan struct{}, 1), make(chan struct{})
	f.await = func(ctx context.Context, p fsm.PartitionID, from fsm.Offset) error {
		waiting <- struct{}{}
		<-ctx.Done()
		close(over)
		return ctx.Err()
	}
	g := serve(t, f, nil)
	c := g.dial()
	c.send(encode(1, produce(-1, "events", 0, "x")))
	c.send(encode(2, metadataOf("events")))
	if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.want(1, kmsg.NewPtrProduceResponse())
	c.want(2, kmsg.NewPtrMetadataResponse())
	c.closed()

	c = g.dial()
	c.send(encode(3, fetchOf("events", 0, 1, time.Minute, 1, 1000)))
	<-waiting
	c.Close()
	<-over
}

// Many requests that nobody takes answers of stop being read, and others are served.
func TestBackPressure(t *testing.T) {
	f := newFake(t, "events")
	proceed := make(chan struct{})
	f.append = func(_ context.Context, p fsm.PartitionID, batches []kafkaproto.Batch) ([]fsm.Appended, error) {
		<-proceed
		return f.doAppend(p, batches)
	}
	g := serve(t, f, func(cfg *Config) { cfg.MaxRequestBytes, cfg.MaxInflightBytes = 1<<20, 4<<20 })
	c := g.dial()
	one := encode(1, produce(-1, "events", 0, string(make([]byte, 500<<10))))
	const all = 100
	sent := make(chan error, 1)
	go func() {
		for range all {
			if _, err := c.Write(one); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	other := g.dial()
	other.do(metadataOf("events")) // small requests are free
	select {
	case <-sent:
		t.Error("50 MB were read where 4 MB are allowed")
	default:
	}
	if held := g.sessions.Requests.Held(); held > 4<<20 {
		t.Errorf("%d bytes are held", held)
	}
	close(proceed)
	for range all {
		c.want(1, kmsg.NewPtrProduceResponse())
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

package gateway

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// TestScripts runs testdata/scripts: requests and answers byte by byte, over a
// real connection. A script is read from top to bottom; its commands are
//
//	server topics=(a:2,b:1) [auto-create=no]   a new server and a new connection
//	request                                    sends the bytes below (see bytesOf), shows the answer
//	request closed                             the same, and the connection has to be closed instead
//	request silence                            the same, and there must be no answer
//	epoch is=N                                 leaders are of that epoch from now on
//	fail append=X read=X offsets=X             fails with outcome.ErrX; without X no more
//	topic name=a max.message.bytes=99          creates a topic
//	unready                                    the node does not know the whole catalog
//	records topic=a partition=0 [start=7]      puts the values below it, one per line, into the log
//
// Answers are taken apart by the tables in this file, which were written from the
// protocol's guide and share nothing with what made the answer.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		s := &script{}
		datadriven.RunTest(t, path, s.run)
	})
}

type script struct {
	cluster *fakeCluster
	gateway *gatewayOf
	client  *client
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "server":
		var topics []string
		if arg, ok := d.Arg("topics"); ok {
			topics = arg.Vals
		}
		s.cluster = newFake(t, topics...)
		s.gateway = serve(t, s.cluster, func(cfg *Config) {
			cfg.AutoCreateTopics = !d.HasArg("auto-create")
			cfg.Advertise = "broker.example:9092"
		})
		s.client = s.gateway.dial()
		return ""
	case "fail":
		s.fail(t, d)
		return ""
	case "records":
		s.records(t, d)
		return ""
	case "topic":
		spec := fsm.TopicSpec{Partitions: 1, ReplicationFactor: 3, Configs: map[string]string{}}
		for _, arg := range d.CmdArgs {
			if arg.Key == "name" {
				spec.Name = arg.Vals[0]
			} else {
				spec.Configs[arg.Key] = arg.Vals[0]
			}
		}
		if err := s.cluster.doCreate(spec, false); err != nil {
			t.Fatal(err)
		}
		return ""
	case "epoch":
		d.ScanArgs(t, "is", (*int32)(&s.cluster.epoch))
		return ""
	case "unready":
		s.cluster.ready = func() error { return outcome.ErrNoLeader }
		return ""
	case "request":
		return s.request(t, d)
	}
	t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	return ""
}

func (s *script) fail(t *testing.T, d *datadriven.TestData) {
	errs := map[string]outcome.Error{
		"Unknown": outcome.ErrUnknown, "UnknownTopicOrPartition": outcome.ErrUnknownTopicOrPartition, "NotLeader": outcome.ErrNotLeader,
		"NoLeader": outcome.ErrNoLeader, "UnknownFate": outcome.ErrUnknownFate, "Void": outcome.ErrVoid, "Storage": outcome.ErrStorage,
		"CorruptMessage": outcome.ErrCorruptMessage, "Timeout": outcome.ErrTimeout, "ShuttingDown": outcome.ErrShuttingDown,
	}
	s.cluster.append, s.cluster.read, s.cluster.offsets = nil, nil, nil
	for _, arg := range d.CmdArgs {
		err, ok := errs[arg.Vals[0]]
		if !ok {
			t.Fatalf("%s: no error is named %s", d.Pos, arg.Vals[0])
		}
		switch arg.Key {
		case "append":
			s.cluster.append = func(context.Context, fsm.PartitionID, []kafkaproto.Batch) ([]fsm.Appended, error) { return nil, err }
		case "read":
			s.cluster.read = func(context.Context, fsm.PartitionID, fsm.Offset, int) (fsm.Slice, error) { return fsm.Slice{}, err }
		case "offsets":
			s.cluster.offsets = func(context.Context, fsm.PartitionID, int64, int) ([]fsm.Offset, error) { return nil, err }
		}
	}
}

func (s *script) records(t *testing.T, d *datadriven.TestData) {
	var topic string
	var partition, start int
	d.ScanArgs(t, "topic", &topic)
	d.ScanArgs(t, "partition", &partition)
	id := s.cluster.id(topic, int32(partition))
	if d.MaybeScanArgs(t, "start", &start) {
		s.cluster.mu.Lock()
		l, _ := s.cluster.log(id)
		l.start, l.next = fsm.Offset(start), fsm.Offset(start)
		s.cluster.mu.Unlock()
	}
	if d.Input == "" {
		return
	}
	batches, _, err := kafkaproto.FromMessageSet(messageSet(strings.Split(strings.TrimSpace(d.Input), "\n")...), kafkaproto.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.cluster.doAppend(id, batches); err != nil {
		t.Fatal(err)
	}
}

func (s *script) request(t *testing.T, d *datadriven.TestData) string {
	b, err := bytesOf(d.Input)
	if err != nil {
		t.Fatalf("%s: %v", d.Pos, err)
	}
	_ = s.client.SetDeadline(time.Now().Add(3 * patience))
	s.client.send(b)
	if d.HasArg("silence") {
		// The next answer is that of the next request.
		s.client.send(encode(0x51, metadataOf()))
		answer, err := s.client.frame()
		if err != nil || binary.BigEndian.Uint32(answer[4:]) != 0x51 {
			t.Fatalf("%s: %x, %v", d.Pos, answer, err)
		}
		return "no answer\n"
	}
	answer, err := s.client.frame()
	if d.HasArg("closed") {
		if !isClosed(err) {
			t.Fatalf("%s: %x, %v", d.Pos, answer, err)
		}
		s.client = s.gateway.dial()
		return "closed\n"
	}
	if err != nil {
		t.Fatalf("%s: %v", d.Pos, err)
	}
	return dump(answer, layouts[[2]uint16{binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])}])
}

// layout is how an answer's body is laid out. A field is "name:kind", where kind
// is a number of bytes, "string", "set" for a message set, "batches" for record
// batches or "[" for an array that goes on until the matching "]". In flexible
// versions (KIP-482) it is "compact" for a string, "compact batches", "{" for an
// array, "tags", and "uuid".
type layout []string

var layouts = map[[2]uint16]layout{
	{0, 0}: {"topics:[", "topic:string", "partitions:[", "partition:4", "error code:2", "offset:8", "]", "]"},
	{1, 0}: {"topics:[", "topic:string", "partitions:[", "partition:4", "error code:2", "high watermark:8", "message set:set", "]", "]"},
	{2, 0}: {"topics:[", "topic:string", "partitions:[", "partition:4", "error code:2", "offsets:[", "offset:8", "]", "]", "]"},
	{3, 0}: {
		"brokers:[", "broker id:4", "host:string", "port:4", "]",
		"topics:[", "error code:2", "topic:string", "partitions:[", "error code:2", "partition:4", "leader:4",
		"replicas:[", "replica:4", "]", "in-sync replicas:[", "replica:4", "]", "]", "]",
	},
	{18, 0}: {"error code:2", "APIs:[", "key:2", "min version:2", "max version:2", "]"},
	{18, 1}: {"error code:2", "APIs:[", "key:2", "min version:2", "max version:2", "]", "throttle ms:4"},
	{18, 9}: {"error code:2", "APIs:[", "key:2", "min version:2", "max version:2", "]"},

	{0, 2}: {"topics:[", "topic:string", "partitions:[", "partition:4", "error code:2", "offset:8", "log append time:8", "]", "]", "throttle ms:4"},
	{0, 3}: {"topics:[", "topic:string", "partitions:[", "partition:4", "error code:2", "offset:8", "log append time:8", "]", "]", "throttle ms:4"},
	{0, 8}: {
		"topics:[", "topic:string", "partitions:[", "partition:4", "error code:2", "offset:8", "log append time:8", "log start:8",
		"record errors:[", "record:4", "message:string", "]", "message:string", "]", "]", "throttle ms:4",
	},
	{0, 13}: {
		"header:tags", "topics:{", "topic id:uuid", "partitions:{", "partition:4", "error code:2", "offset:8", "log append time:8", "log start:8",
		"record errors:{", "record:4", "message:compact", "partition tags:tags", "]", "message:compact", "partition tags:tags", "]", "topic tags:tags", "]", "throttle ms:4", "response:tags",
	},
	{1, 2}: {"throttle ms:4", "topics:[", "topic:string", "partitions:[", "partition:4", "error code:2", "high watermark:8", "message set:set", "]", "]"},
	{1, 3}: {"throttle ms:4", "topics:[", "topic:string", "partitions:[", "partition:4", "error code:2", "high watermark:8", "message set:set", "]", "]"},
	{1, 4}: {
		"throttle ms:4", "topics:[", "topic:string", "partitions:[", "partition:4", "error code:2", "high watermark:8", "last stable offset:8",
		"aborted transactions:[", "producer id:8", "first offset:8", "]", "records:batches", "]", "]",
	},
	{1, 9}: {
		"throttle ms:4", "error code:2", "session id:4", "topics:[", "topic:string", "partitions:[", "partition:4", "error code:2", "high watermark:8",
		"last stable offset:8", "log start:8", "aborted transactions:[", "producer id:8", "first offset:8", "]", "records:batches", "]", "]",
	},
	{1, 13}: {
		"header:tags", "throttle ms:4", "error code:2", "session id:4", "topics:{", "topic id:uuid", "partitions:{", "partition:4", "error code:2", "high watermark:8",
		"last stable offset:8", "log start:8", "aborted transactions:{", "producer id:8", "first offset:8", "transaction tags:tags", "]", "preferred replica:4", "records:compact batches",
		"partition tags:tags", "]", "topic tags:tags", "]", "response:tags",
	},
	{2, 1}: {"topics:[", "topic:string", "partitions:[", "partition:4", "error code:2", "timestamp:8", "offset:8", "]", "]"},
	{2, 7}: {
		"header:tags", "throttle ms:4", "topics:{", "topic:compact", "partitions:{", "partition:4", "error code:2", "timestamp:8", "offset:8", "leader epoch:4",
		"partition tags:tags", "]", "topic tags:tags", "]", "response:tags",
	},
	{3, 2}: {
		"brokers:[", "broker id:4", "host:string", "port:4", "rack:string", "]", "cluster id:string", "controller:4",
		"topics:[", "error code:2", "topic:string", "internal:1", "partitions:[", "error code:2", "partition:4", "leader:4",
		"replicas:[", "replica:4", "]", "in-sync replicas:[", "replica:4", "]", "]", "]",
	},
	{3, 4}: {
		"throttle ms:4", "brokers:[", "broker id:4", "host:string", "port:4", "rack:string", "]", "cluster id:string", "controller:4",
		"topics:[", "error code:2", "topic:string", "internal:1", "partitions:[", "error code:2", "partition:4", "leader:4",
		"replicas:[", "replica:4", "]", "in-sync replicas:[", "replica:4", "]", "]", "]",
	},
	{3, 12}: {
		"header:tags", "throttle ms:4", "brokers:{", "broker id:4", "host:compact", "port:4", "rack:compact", "broker tags:tags", "]", "cluster id:compact", "controller:4",
		"topics:{", "error code:2", "topic:compact", "topic id:uuid", "internal:1", "partitions:{", "error code:2", "partition:4", "leader:4", "leader epoch:4",
		"replicas:{", "replica:4", "]", "in-sync replicas:{", "replica:4", "]", "offline replicas:{", "replica:4", "]", "partition tags:tags", "]",
		"authorized operations:4", "topic tags:tags", "]", "response:tags",
	},
	{17, 0}: {"error code:2", "mechanisms:[", "mechanism:string", "]"},
	{36, 0}: {"error code:2", "message:string", "bytes:4"},
	{18, 5}: {"error code:2", "APIs:{", "key:2", "min version:2", "max version:2", "API tags:tags", "]", "throttle ms:4", "response:tags"},
	{23, 3}: {"throttle ms:4", "topics:[", "topic:string", "partitions:[", "error code:2", "partition:4", "leader epoch:4", "end offset:8", "]", "]"},
	{60, 1}: {
		"header:tags", "throttle ms:4", "error code:2", "message:compact", "endpoint type:1", "cluster id:compact", "controller:4",
		"brokers:{", "broker id:4", "host:compact", "port:4", "rack:compact", "broker tags:tags", "]", "authorized operations:4", "response:tags",
	},
	{75, 0}: {
		"header:tags", "throttle ms:4", "topics:{", "error code:2", "topic:compact", "topic id:uuid", "internal:1", "partitions:{", "error code:2", "partition:4", "leader:4", "leader epoch:4",
		"replicas:{", "replica:4", "]", "in-sync replicas:{", "replica:4", "]", "eligible leaders:{", "replica:4", "]", "last known eligible leaders:{", "replica:4", "]",
		"offline replicas:{", "replica:4", "]", "partition tags:tags", "]", "authorized operations:4", "topic tags:tags", "]",
		"cursor:cursor", "response:tags",
	},
}

// dump shows an answer field by field.
func dump(frame []byte, l layout) string {
	d := &dumper{rest: frame}
	d.field(0, "size:4")
	d.field(0, "correlation id:4")
	d.fields(0, l)
	if len(d.rest) > 0 {
		d.line(0, d.take(len(d.rest)), "more than there should be")
	}
	return d.out.String()
}

type dumper struct {
	rest []byte
	out  strings.Builder
}

func (d *dumper) take(n int) []byte {
	n = max(0, min(n, len(d.rest)))
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *dumper) line(depth int, b []byte, format string, args ...any) {
	text := hex.EncodeToString(b)
	if len(text) > 48 {
		text = text[:44] + "…"
	}
	fmt.Fprintf(&d.out, "%s%s  # %s\n", strings.Repeat("  ", depth), text, fmt.Sprintf(format, args...))
}

func (d *dumper) number(depth, n int, name string) int64 {
	b := d.take(n)
	var v int64
	for i, c := range b {
		if i == 0 {
			v = int64(int8(c))
		} else {
			v = v<<8 | int64(c)
		}
	}
	d.line(depth, b, "%s %d", name, v)
	return v
}

func (d *dumper) fields(depth int, l layout) {
	for i := 0; i < len(l); i++ {
		name, kind, _ := strings.Cut(l[i], ":")
		if kind != "[" && kind != "{" {
			d.field(depth, l[i])
			continue
		}
		end, open := i+1, 1
		for ; open > 0; end++ {
			switch {
			case strings.HasSuffix(l[end], ":["), strings.HasSuffix(l[end], ":{"):
				open++
			case l[end] == "]":
				open--
			}
		}
		count := func() int64 {
			if kind == "{" {
				return d.length(depth, name)
			}
			return d.number(depth, 4, name)
		}
		for n := count(); n > 0 && len(d.rest) > 0; n-- {
			d.fields(depth+1, l[i+1:end-1])
		}
		i = end - 1
	}
}

func (d *dumper) field(depth int, f string) {
	name, kind, _ := strings.Cut(f, ":")
	switch kind {
	case "string":
		n := int(int16(binary.BigEndian.Uint16(append(d.rest[:min(2, len(d.rest)):2], 0, 0))))
		b := d.take(2 + max(n, 0))
		d.line(depth, b, "%s %q", name, b[2:])
	case "compact":
		before := d.rest
		n, size := binary.Uvarint(d.rest)
		b := d.take(size + max(int(n)-1, 0))
		if n == 0 {
			d.line(depth, before[:1], "%s null", name)
			return
		}
		d.line(depth, b, "%s %q", name, b[size:])
	case "uuid":
		d.line(depth, d.take(16), "%s", name)
	case "tags":
		if n, size := binary.Uvarint(d.rest); n != 0 {
			d.line(depth, d.take(len(d.rest)), "%s: %d, which nobody expects", name, n)
		} else {
			d.line(depth, d.take(size), "%s: none", name)
		}
	case "cursor":
		if int8(d.rest[0]) < 0 {
			d.line(depth, d.take(1), "%s null", name)
			return
		}
		d.number(depth, 1, name)
		d.fields(depth+1, layout{"topic:compact", "partition:4", "cursor tags:tags"})
	case "batches", "compact batches":
		var n int64
		if kind == "batches" {
			n = d.number(depth, 4, name+", bytes")
		} else {
			n = d.length(depth, name+", bytes")
		}
		d.batches(depth+1, d.take(int(n)))
	case "set":
		n := d.number(depth, 4, name+", bytes")
		set := dumper{rest: d.take(int(n))}
		for len(set.rest) > 0 {
			set.message(depth + 1)
		}
		d.out.WriteString(set.out.String())
	default:
		d.number(depth, int(kind[0]-'0'), name)
	}
}

// length shows the length of a compact array or of compact bytes.
func (d *dumper) length(depth int, name string) int64 {
	n, size := binary.Uvarint(d.rest)
	d.line(depth, d.take(size), "%s %d", name, int64(n)-1)
	return int64(n) - 1
}

// batches shows the headers of record batches.
func (d *dumper) batches(depth int, b []byte) {
	be := binary.BigEndian
	for len(b) > 0 {
		if len(b) < 61 || len(b) < 12+int(be.Uint32(b[8:])) {
			d.line(depth, b, "%d bytes of a batch that is cut", len(b))
			return
		}
		size := 12 + int(be.Uint32(b[8:]))
		d.line(depth, b[:size], "batch at offset %d, %d bytes, leader epoch %d, magic %d, attributes %d, %d records, max timestamp %d, producer %d/%d, sequence %d",
			be.Uint64(b), size, be.Uint32(b[12:]), b[16], be.Uint16(b[21:]), be.Uint32(b[57:]), int64(be.Uint64(b[35:])),
			int64(be.Uint64(b[43:])), int16(be.Uint16(b[51:])), int32(be.Uint32(b[53:])))
		b = b[size:]
	}
}

// message shows one message of magic 0 or 1, or that the last one is cut.
func (d *dumper) message(depth int) {
	b := d.rest
	if len(b) < 26 || len(b) < 12+int(binary.BigEndian.Uint32(b[8:])) {
		d.line(depth, d.take(len(b)), "%d bytes of a message that is cut", len(b))
		return
	}
	size := int(binary.BigEndian.Uint32(b[8:]))
	m := b[12 : 12+size]
	rest := m[6:]
	when := ""
	if m[4] == 1 {
		when = fmt.Sprintf("timestamp %d, ", int64(binary.BigEndian.Uint64(rest)))
		rest = rest[8:]
	}
	key, rest := bytesField(rest)
	value, _ := bytesField(rest)
	offset := binary.BigEndian.Uint64(b)
	d.line(depth, d.take(12+size), "offset %d, size %d, magic %d, attributes %d, %skey %s, value %s", offset, size, m[4], m[5], when, key, value)
}

func bytesField(b []byte) (string, []byte) {
	n := int(int32(binary.BigEndian.Uint32(b)))
	if n < 0 {
		return "null", b[4:]
	}
	return fmt.Sprintf("%q", b[4:4+n]), b[4+n:]
}

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/test/harness"
)

// fake is a broker in memory, honest or with one fault, for the checker to judge.
type fake struct {
	listener net.Listener
	fault    string

	mu       sync.Mutex
	logs     map[int32][]harness.Entry
	produced int
	open     map[net.Conn]bool
}

func startFake(t *testing.T, fault string) *fake {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{listener: l, fault: fault, logs: map[int32][]harness.Entry{}, open: map[net.Conn]bool{}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.open[c] = true
			f.mu.Unlock()
			all.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.mu.Lock()
		for c := range f.open {
			c.Close()
		}
		f.mu.Unlock()
		all.Wait()
	})
	return f
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	for {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(c, frame); err != nil {
			return
		}
		r := kbin.Reader{Src: frame}
		req := kmsg.RequestForKey(r.Int16())
		req.SetVersion(r.Int16())
		correlation := r.Int32()
		r.NullableString()
		if err := req.ReadFrom(r.Src); err != nil {
			return
		}
		resp, err := f.answer(req)
		if err != nil {
			return
		}
		out := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 0}, uint32(correlation))
		out = resp.AppendTo(out)
		binary.BigEndian.PutUint32(out, uint32(len(out)-4))
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// answer gives an error to have the connection closed instead.
func (f *fake) answer(req kmsg.Request) (kmsg.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch req := req.(type) {
	case *kmsg.CreateTopicsRequest:
		resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
		resp.Topics = append(resp.Topics, kmsg.CreateTopicsResponseTopic{Topic: req.Topics[0].Topic})
		return resp, nil
	case *kmsg.ProduceRequest:
		in := req.Topics[0].Partitions[0]
		base, err := f.append(in.Partition, in.Records)
		if err != nil {
			return nil, err
		}
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		resp.Topics = []kmsg.ProduceResponseTopic{{Topic: req.Topics[0].Topic,
			Partitions: []kmsg.ProduceResponseTopicPartition{{Partition: in.Partition, BaseOffset: base}}}}
		return resp, nil
	case *kmsg.FetchRequest:
		in := req.Topics[0].Partitions[0]
		part := kmsg.FetchResponseTopicPartition{Partition: in.Partition}
		if log := f.logs[in.Partition]; in.FetchOffset > int64(len(log)) {
			part.ErrorCode = 1
		} else {
			for i, m := range log[in.FetchOffset:] {
				m.Offset = in.FetchOffset + int64(i)
				part.RecordBatches = harness.Message(part.RecordBatches, m.Offset, 0, m.Key, m.Value)
			}
			part.RecordBatches = part.RecordBatches[:min(len(part.RecordBatches), int(in.PartitionMaxBytes))]
		}
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		resp.Topics = []kmsg.FetchResponseTopic{{Topic: req.Topics[0].Topic, Partitions: []kmsg.FetchResponseTopicPartition{part}}}
		return resp, nil
	case *kmsg.ListOffsetsRequest:
		in := req.Topics[0].Partitions[0]
		resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		resp.Topics = []kmsg.ListOffsetsResponseTopic{{Topic: req.Topics[0].Topic, Partitions: []kmsg.ListOffsetsResponseTopicPartition{
			{Partition: in.Partition, OldStyleOffsets: []int64{int64(len(f.logs[in.Partition]))}}}}}
		return resp, nil
	}
	return nil, errors.New("not served")
}

// append is where the faults are: each strikes the 20th request and is silent.
func (f *fake) append(partition int32, set []byte) (int64, error) {
	messages, err := parseMessages(set)
	if err != nil {
		return 0, err
	}
	f.produced++
	strikes := f.produced == 20
	log := f.logs[partition]
	base := int64(len(log))
	switch {
	case strikes && f.fault == "forgets":
		return base, nil
	case strikes && f.fault == "writes twice":
		log = append(append(log, messages...), messages...)
	case strikes && f.fault == "says another offset":
		f.logs[partition] = append(log, messages...)
		return base + 1, nil
	case strikes && f.fault == "flips a bit":
		messages[0].Value = bytes.ToUpper(messages[0].Value)
		log = append(log, messages...)
	case f.produced%20 == 0 && f.fault == "hangs up after writing":
		f.logs[partition] = append(log, messages...)
		return 0, io.EOF
	case f.produced%20 == 0 && f.fault == "hangs up before writing":
		return 0, io.EOF
	default:
		log = append(log, messages...)
	}
	f.logs[partition] = log
	return base, nil
}

func TestTheCheckerJudges(t *testing.T) {
	for fault, good := range map[string]bool{
		"":                        true,
		"hangs up after writing":  true,
		"hangs up before writing": true,
		"forgets":                 false,
		"writes twice":            false,
		"says another offset":     false,
		"flips a bit":             false,
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			f := startFake(t, fault)
			addr := f.listener.Addr().String()
			var out strings.Builder
			got, err := run(context.Background(), options{
				shim: addr, brokers: []string{addr, addr}, topic: "t", seconds: 1, partitions: 2, producers: 3, batch: 5,
				valueSize: size, pause: 5 * time.Millisecond, timeout: time.Second,
			}, &out)
			if err != nil || got != good {
				t.Errorf("good is %v, want %v (%v)\n%s", got, good, err, out.String())
			}
			if good && !strings.Contains(out.String(), "result: nothing lost") {
				t.Errorf("the report does not say so:\n%s", out.String())
			}
		})
	}
}

package oracle

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// volatile are fields of answers that differ from run to run, from broker to broker or
// in wording: they are never written down.
var volatile = []string{
	"Version", "UnknownTags", "ThrottleMillis", "ErrorMessage", "TopicID", "CurrentLeader", "LeaderEpoch", "CurrentLeaderEpoch",
	"Brokers", "ClusterID", "ControllerID", "Host", "Port", "NodeID", "Rack", "SessionID", "Documentation",
}

// render gives the text of an answer: the scalars of a structure in a line, what it
// contains below, indented.
func (t *T) render(resp kmsg.Response, without []string) string {
	var b strings.Builder
	t.structure(&b, reflect.ValueOf(resp).Elem(), "", slices.Concat(volatile, without))
	return b.String()
}

func (t *T) structure(b *strings.Builder, v reflect.Value, indent string, without []string) {
	var words []string
	var below strings.Builder
	for i := range v.NumField() {
		name, f := v.Type().Field(i).Name, v.Field(i)
		if slices.Contains(without, name) || !v.Type().Field(i).IsExported() {
			continue
		}
		if f.Kind() == reflect.Pointer {
			if f.IsNil() {
				words = append(words, name+"=null")
				continue
			}
			f = f.Elem()
		}
		switch {
		case f.Kind() == reflect.Struct:
			fmt.Fprintf(&below, "%s  %s: ", indent, name)
			t.structure(&below, f, indent+"  ", without)
		case f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct:
			for _, j := range t.order(f) {
				fmt.Fprintf(&below, "%s  %s: ", indent, name)
				t.structure(&below, f.Index(j), indent+"  ", without)
			}
		default:
			words = append(words, name+"="+t.scalar(name, f))
		}
	}
	b.WriteString(strings.Join(words, " "))
	b.WriteString("\n")
	b.WriteString(below.String())
}

// order gives the places of a list's elements, in the order in which they are written down.
func (t *T) order(list reflect.Value) []int {
	places := make([]int, list.Len())
	for i := range places {
		places[i] = i
	}
	if !t.byName {
		return places
	}
	name := func(i int) string {
		for _, field := range []string{"Topic", "Group", "Name", "User", "Key", "ResourceName"} {
			f := list.Index(i).FieldByName(field)
			if f.IsValid() && f.Kind() == reflect.Pointer {
				f = f.Elem()
			}
			if f.IsValid() && f.Kind() == reflect.String && f.String() != "" {
				return t.replaced(f.String())
			}
		}
		if f := list.Index(i).FieldByName("TopicID"); f.IsValid() && f.Index(0).Uint() == 1 && f.Index(1).Uint() == 0 {
			return "an id of no topic"
		}
		return "topic"
	}
	slices.SortStableFunc(places, func(a, b int) int { return strings.Compare(name(a), name(b)) })
	return places
}

func (t *T) scalar(name string, v reflect.Value) string {
	switch {
	case name == "ErrorCode":
		return errorName(int16(v.Int()))
	case strings.Contains(name, "Timestamp") || strings.HasSuffix(name, "Time"):
		if v.CanInt() {
			return t.time(v.Int())
		}
	case v.Kind() == reflect.String:
		text := v.String()
		if alias, ok := t.aliases[text]; ok {
			return alias
		}
		return fmt.Sprintf("%q", text)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8:
		return fmt.Sprintf("%q", v.Bytes())
	}
	return fmt.Sprint(v.Interface())
}

// time writes a time down as its distance to the beginning of the case.
func (t *T) time(ms int64) string {
	d := ms - t.Now
	switch {
	case d > 100*365*day:
		return "far ahead"
	case ms < 1_000_000_000_000: // -1 for none, and what a case itself chose
		return fmt.Sprint(ms)
	case d > 0 && d < 60_000:
		return "now" // given by the broker
	case d == 0:
		return "begin"
	}
	return fmt.Sprintf("begin%+d", d)
}

// read fetches from a topic's first partition.
func (t *T) read(topic string) kmsg.FetchResponseTopicPartition {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 11, 0, 0, 32<<20
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.PartitionMaxBytes = 32 << 20
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return t.ask(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]
}

// Records reads a topic's first partition from the beginning and writes down every batch
// and record in it, decompressed.
func (t *T) Records(topic string) {
	p := t.read(topic)
	if p.ErrorCode != 0 {
		t.Say("records: %s", errorName(p.ErrorCode))
		return
	}
	set := p.RecordBatches
	t.Say("records: %d to %d", p.LogStartOffset, p.HighWatermark)
	for len(set) > 61 {
		var batch kmsg.RecordBatch
		if err := batch.ReadFrom(set); err != nil {
			t.fail("a batch that cannot be read: %v", err)
		}
		set = set[12+int(batch.Length):]
		codec := kgo.CompressionCodecType(batch.Attributes & 7)
		t.Say("  batch at %d: attributes %#x producer %d/%d/%d times %s to %s", batch.FirstOffset, batch.Attributes,
			batch.ProducerID, batch.ProducerEpoch, batch.FirstSequence, t.time(batch.FirstTimestamp), t.time(batch.MaxTimestamp))
		raw, err := kgo.DefaultDecompressor().Decompress(batch.Records, codec)
		if err != nil {
			t.Say("    unreadable to franz-go")
			continue
		}
		for range batch.NumRecords {
			var r kmsg.Record
			if err := r.ReadFrom(raw); err != nil {
				t.Say("    a record that franz-go cannot read")
				break
			}
			raw = raw[varintLen(int64(r.Length))+int(r.Length):]
			text := fmt.Sprintf("    %d %s %s=%s", batch.FirstOffset+int64(r.OffsetDelta), t.time(batch.FirstTimestamp+r.TimestampDelta64), quoted(r.Key), quoted(r.Value))
			for _, h := range r.Headers {
				text += fmt.Sprintf(" %q:%s", h.Key, quoted(h.Value))
			}
			t.Say("%s", text)
		}
	}
}

func quoted(b []byte) string {
	if b == nil {
		return "null"
	}
	return fmt.Sprintf("%.40q", b)
}

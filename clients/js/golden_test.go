// Package js holds no Go but this test, which gives the JavaScript client's tests frames that
// franz-go's structures made, and batches in every codec.
package js

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var update = flag.Bool("update", false, "write the golden files")

// versions are those that src/apis.ts has.
var versions = map[int16]int16{
	0: 9, 1: 12, 2: 7, 3: 12, 8: 8, 9: 7, 10: 3, 11: 7, 12: 4, 13: 4, 14: 5, 15: 5, 16: 4, 17: 1, 18: 3, 19: 7, 20: 5, 21: 2,
	22: 4, 29: 2, 30: 2, 31: 2, 32: 4, 36: 2, 37: 2, 42: 2, 44: 1, 47: 0, 50: 0, 51: 0, 60: 0,
}

// fill gives every field that is not a tagged one a value of its own: lists get two elements and
// byte strings their number; with zero everything is empty, null where that may be.
func fill(v reflect.Value, n *int, zero bool) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if name == "Version" || name == "UnknownTags" || !v.Field(i).CanSet() {
				continue
			}
			fill(v.Field(i), n, zero)
		}
	case reflect.Pointer:
		if zero {
			v.SetZero()
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n, zero)
	case reflect.Slice:
		if zero {
			v.SetZero()
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), n, zero)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n, zero)
		}
	case reflect.String:
		if !zero {
			v.SetString(fmt.Sprintf("s%d-ä€", *n))
		}
	case reflect.Bool:
		v.SetBool(!zero && *n%2 == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if !zero {
			v.SetInt(int64(*n%100 + 1))
			if v.Kind() == reflect.Int64 {
				v.SetInt(int64(*n)<<40 + 7)
			}
		}
	case reflect.Uint8:
		if !zero {
			v.SetUint(uint64(*n % 256))
		}
	case reflect.Float64:
		if !zero {
			v.SetFloat(float64(*n) + 0.5)
		}
	}
}

// untag takes back what only tagged fields carry: the client leaves those as they are.
func untag(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.CanAddr() {
			for _, name := range []string{
				"CurrentLeader", "DivergingEpoch", "SnapshotID", "ClusterID", "ReplicaState", "Brokers", "SupportedFeatures", "FinalizedFeatures",
				"FinalizedFeaturesEpoch", "ZkMigrationReady", "ConfigErrorCode",
			} {
				f := v.FieldByName(name)
				if !f.IsValid() || name == "Brokers" || name == "ClusterID" && v.Type().Name() != "FetchRequest" {
					continue
				}
				f.SetZero()
				if d := f.Addr().MethodByName("Default"); d.IsValid() {
					d.Call(nil)
				}
				if name == "FinalizedFeaturesEpoch" {
					f.SetInt(-1)
				}
			}
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				untag(v.Field(i))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			untag(v.Index(i))
		}
	}
}

type golden struct {
	Key     int16  `json:"key"`
	Version int16  `json:"version"`
	Name    string `json:"name"`
	// whole frames: header, correlation id 7, client id "golden"
	Requests  []string `json:"requests"`
	Responses []string `json:"responses"` // behind the correlation id
}

func frames(t *testing.T) []golden {
	t.Helper()
	var all []golden
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID("golden"))
	for key := range int16(100) {
		version, ok := versions[key]
		if !ok {
			continue
		}
		g := golden{Key: key, Version: version, Name: kmsg.NameForKey(key)}
		for _, zero := range []bool{false, true} {
			req := kmsg.RequestForKey(key)
			n := 0
			fill(reflect.ValueOf(req).Elem(), &n, zero)
			untag(reflect.ValueOf(req).Elem())
			req.SetVersion(version)
			g.Requests = append(g.Requests, encoded(f.AppendRequest(nil, req, 7)))
			resp := req.ResponseKind()
			n = 0
			fill(reflect.ValueOf(resp).Elem(), &n, zero)
			untag(reflect.ValueOf(resp).Elem())
			if r, ok := resp.(*kmsg.ApiVersionsResponse); ok {
				r.ErrorCode = 0
			}
			resp.SetVersion(version)
			var header []byte
			if resp.IsFlexible() && key != 18 {
				header = []byte{0}
			}
			g.Responses = append(g.Responses, encoded(resp.AppendTo(header)))
		}
		all = append(all, g)
	}
	return all
}

type codec struct {
	Name  string `json:"name"`
	Codec int    `json:"codec"`
	Set   string `json:"set"` // batches as in an answer to Fetch
}

// records are 300, of which some have no key, no value, headers.
func records() []byte {
	var all []byte
	for i := range 300 {
		r := kmsg.NewRecord()
		r.TimestampDelta64 = int64(i * i * i * 1000)
		r.OffsetDelta = int32(i)
		r.Key, r.Value = []byte(fmt.Sprintf("key-%d", i%7)), []byte(strings.Repeat(fmt.Sprintf("value %d ", i*i), i%20))
		switch i % 5 {
		case 0:
			r.Key = nil
		case 1:
			r.Value = nil
		case 2:
			r.Headers = []kmsg.Header{{Key: "h", Value: []byte{byte(i)}}, {Key: "null"}}
		}
		body := r.AppendTo(nil)
		_, prefix := binary.Varint(body)
		r.Length = int32(len(body) - prefix)
		all = r.AppendTo(all)
	}
	return all
}

func batch(records []byte, count, attributes int) []byte {
	return batchAt(1000, 12345678901, records, count, attributes)
}

func batchAt(offset, producer int64, records []byte, count, attributes int) []byte {
	b := kmsg.NewRecordBatch()
	b.FirstOffset = offset
	b.Magic = 2
	b.Attributes = int16(attributes)
	b.LastOffsetDelta = int32(count - 1)
	b.FirstTimestamp, b.MaxTimestamp = 1_700_000_000_000, 1_800_000_000_000
	b.ProducerID, b.ProducerEpoch, b.FirstSequence = producer, 3, 77
	b.NumRecords = int32(count)
	b.Records = records
	b.Length = int32(49 + len(records))
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

func codecs(t *testing.T) []codec {
	t.Helper()
	raw := records()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var all []codec
	add := func(name string, code int, compressed []byte) {
		all = append(all, codec{name, code, encoded(batch(compressed, 300, code))})
	}
	add("none", 0, raw)
	var b bytes.Buffer
	gz, err := gzip.NewWriterLevel(&b, 9)
	must(err)
	_, err = gz.Write(raw)
	must(err)
	must(gz.Close())
	add("gzip", 1, b.Bytes())
	add("snappy", 2, s2.EncodeSnappy(nil, raw))
	xerial := []byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01")
	for rest := raw; len(rest) > 0; {
		n := min(len(rest), 4<<10)
		block := s2.EncodeSnappyBest(nil, rest[:n])
		xerial = binary.BigEndian.AppendUint32(xerial, uint32(len(block)))
		xerial = append(xerial, block...)
		rest = rest[n:]
	}
	add("snappy, framed by xerial", 2, xerial)
	for name, options := range map[string][]lz4.Option{
		"lz4": {lz4.BlockSizeOption(lz4.Block64Kb)},
		"lz4 with all checksums and the size": {
			lz4.BlockChecksumOption(true), lz4.ChecksumOption(true), lz4.SizeOption(uint64(len(raw))), lz4.CompressionLevelOption(lz4.Level9),
		},
	} {
		b.Reset()
		w := lz4.NewWriter(&b)
		must(w.Apply(append(options, lz4.ConcurrencyOption(1))...))
		_, err = w.Write(raw)
		must(err)
		must(w.Close())
		add(name, 3, b.Bytes())
	}
	for _, level := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression, zstd.SpeedBestCompression} {
		w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(level == zstd.SpeedDefault))
		must(err)
		add(fmt.Sprintf("zstd %s", level), 4, w.EncodeAll(raw, nil))
	}
	sortCodecs(all)
	return all
}

func sortCodecs(all []codec) {
	for i := range all {
		for k := i; k > 0 && all[k].Name < all[k-1].Name; k-- {
			all[k], all[k-1] = all[k-1], all[k]
		}
	}
}

// fetched is an answer to Fetch with transactions that were aborted, committed or interleaved, and
// the offsets that a client has of it, as franz-go has them. kafka-transactions.json has one that
// Kafka 4.4.0 gave to read_committed: five transactional producers wrote, each with another codec.
type fetched struct {
	From        int64   `json:"from"`
	End         int64   `json:"end"`
	Response    string  `json:"response"` // behind the correlation id
	Uncommitted []int64 `json:"uncommitted"`
	Committed   []int64 `json:"committed"`
}

func transactions(t *testing.T) []fetched {
	t.Helper()
	const plain, transactional, control = 0, 0x10, 0x30
	abort, commit := []byte{0, 0, 0, 0}, []byte{0, 0, 0, 1}
	var batches [][]byte
	var ends []int64 // the offset behind each
	next := int64(0)
	add := func(producer int64, attributes int, keys ...[]byte) {
		var records []byte
		for i, key := range keys {
			r := kmsg.NewRecord()
			r.OffsetDelta, r.Key, r.Value = int32(i), key, fmt.Appendf(nil, "at %d", next+int64(i))
			body := r.AppendTo(nil)
			_, prefix := binary.Varint(body)
			r.Length = int32(len(body) - prefix)
			records = r.AppendTo(records)
		}
		if attributes == transactional { // one codec will do
			records = s2.EncodeSnappy(nil, records)
			attributes |= 2
		}
		batches = append(batches, batchAt(next, producer, records, len(keys), attributes))
		next += int64(len(keys))
		ends = append(ends, next)
	}
	key := []byte("k")
	add(-1, plain, key, key)         // 0, 1
	add(10, transactional, key, key) // 2, 3: aborted at 5
	add(20, transactional, key)      // 4: committed at 7
	add(10, control, abort)
	add(10, transactional, key) // 6: committed at 10
	add(20, control, commit)
	add(10, transactional, key, key) // 8, 9
	add(10, control, commit)
	add(10, transactional, key, key) // 11, 12: aborted at 14
	add(30, transactional, key)      // 13: aborted at 17
	add(10, control, abort)
	add(10, plain, key, key) // 15, 16: of the same producer, and of no transaction
	add(30, control, abort)
	add(-1, plain, key) // 18
	all := []fetched{}
	for _, from := range []int64{0, 3, 4, 6, 9, 12, 14, 15, 18} {
		p := kmsg.NewFetchResponseTopicPartition()
		p.HighWatermark, p.LastStableOffset = next, next
		// As a broker answers: from the batch on that has the offset, and with what was aborted
		// behind it.
		for i, b := range batches {
			if ends[i] > from {
				p.RecordBatches = append(p.RecordBatches, b...)
			}
		}
		type transaction struct{ producer, first, marker int64 }
		for _, a := range []transaction{{10, 11, 14}, {30, 13, 17}, {10, 2, 5}} {
			if a.marker >= from {
				one := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
				one.ProducerID, one.FirstOffset = a.producer, a.first
				p.AbortedTransactions = append(p.AbortedTransactions, one)
			}
		}
		resp := kmsg.NewPtrFetchResponse()
		resp.SetVersion(versions[1])
		topic := kmsg.NewFetchResponseTopic()
		topic.Topic, topic.Partitions = "t", []kmsg.FetchResponseTopicPartition{p}
		resp.Topics = append(resp.Topics, topic)
		offsets := func(level kgo.IsolationLevel) []int64 {
			o := kgo.ProcessFetchPartitionOpts{Offset: from, IsolationLevel: level}
			read, _ := kgo.ProcessFetchPartition(o, &p, kgo.DefaultDecompressor(), nil)
			if read.Err != nil {
				t.Fatal(read.Err)
			}
			at := []int64{}
			for _, r := range read.Records {
				at = append(at, r.Offset)
			}
			return at
		}
		all = append(all, fetched{
			From: from, End: next, Response: encoded(resp.AppendTo([]byte{0})),
			Uncommitted: offsets(kgo.ReadUncommitted()), Committed: offsets(kgo.ReadCommitted()),
		})
	}
	return all
}

type kafkaError struct {
	Code      int16  `json:"code"`
	Name      string `json:"name"`
	Retriable bool   `json:"retriable"`
}

func kafkaErrors() []kafkaError {
	var all []kafkaError
	for code := range int16(137) {
		if e := kerr.TypedErrorForCode(code); e != nil && e.Code == code {
			all = append(all, kafkaError{code, e.Message, e.Retriable})
		}
	}
	return all
}

func encoded(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// TestTheGoldenFilesOfTheJavaScriptClient holds them to what this program makes; -update writes
// them.
func TestTheGoldenFilesOfTheJavaScriptClient(t *testing.T) {
	for name, content := range map[string]any{"frames.json": frames(t), "codecs.json": codecs(t), "transactions.json": transactions(t), "errors.json": kafkaErrors()} {
		want, err := json.MarshalIndent(content, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, '\n')
		file := filepath.Join("test", "testdata", name)
		if *update {
			if err := os.WriteFile(file, want, 0o666); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what franz-go makes: go test ./clients/js -update, and look at the difference", file)
		}
	}
}

package kafkaproto

import (
	"encoding/binary"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// example gives a request with something in every field, two elements in every
// array and a tagged field that nobody knows wherever there can be one.
func example(key, version int16) kmsg.Request {
	req := kmsg.RequestForKey(key)
	req.SetVersion(version)
	next := 0
	fillIn(reflect.ValueOf(req).Elem(), &next)
	req.SetVersion(version)
	return req
}

func fillIn(v reflect.Value, next *int) {
	*next++
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == tagsType {
			v.Addr().Interface().(*kmsg.Tags).Set(77, []byte("unknown"))
			return
		}
		for i := range v.NumField() {
			fillIn(v.Field(i), next)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte("bytes"))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fillIn(v.Index(0), next)
		fillIn(v.Index(1), next)
	case reflect.Pointer:
		if *next%3 == 0 && v.Type().Elem().Kind() == reflect.String {
			return // null
		}
		v.Set(reflect.New(v.Type().Elem()))
		fillIn(v.Elem(), next)
	case reflect.Array:
		for i := range v.Len() {
			fillIn(v.Index(i), next)
		}
	case reflect.String:
		v.SetString(strings.Repeat("s", *next%5))
	case reflect.Bool:
		v.SetBool(*next%2 == 0)
	case reflect.Float64:
		v.SetFloat(float64(*next))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(uint64(*next % 256))
	default:
		v.SetInt(int64(*next % 128))
	}
}

// Every served API and version decodes to what kmsg encoded, and nothing that
// is cut or has bytes behind its end does.
// Nothing is decoded before somebody has agreed to the number of its elements.
func TestDecodeRequestAsks(t *testing.T) {
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 9
	for range 3 {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = kmsg.StringPtr("a")
		topic.UnknownTags.Set(7, []byte("b"))
		req.Topics = append(req.Topics, topic)
	}
	refused := errors.New("refused")
	got, err := DecodeRequest(Header{Key: 3, Version: 9}, req.AppendTo(nil), func(elements int) error {
		if elements != 6 {
			t.Errorf("three topics with a tagged field each are %d elements", elements)
		}
		return refused
	})
	if !errors.Is(err, refused) || got != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestDecodeRequest(t *testing.T) {
	for _, api := range Served {
		for v := api.Min; v <= api.Max; v++ {
			req := example(int16(api.Key), v)
			body := req.AppendTo(nil)
			h := Header{Key: int16(api.Key), Version: v}
			got, err := DecodeRequest(h, body, nil)
			if err != nil {
				t.Fatalf("%s v%d: %v", api.Name, v, err)
			}
			if again := got.AppendTo(nil); string(again) != string(body) || got.GetVersion() != v || reflect.TypeOf(got) != reflect.TypeOf(req) {
				t.Errorf("%s v%d: got %x, want %x", api.Name, v, again, body)
			}
			for n := range body {
				if _, err := DecodeRequest(h, body[:n], nil); !errors.Is(err, ErrMalformed) {
					t.Fatalf("%s v%d cut to %d of %d bytes: %v", api.Name, v, n, len(body), err)
				}
			}
			if _, err := DecodeRequest(h, append(body, 0), nil); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s v%d with a byte more: %v", api.Name, v, err)
			}
		}
		for _, v := range []int16{api.Min - 1, api.Max + 1, -1, 32767} {
			if _, err := DecodeRequest(Header{Key: int16(api.Key), Version: v}, nil, nil); !errors.Is(err, ErrNotServed) {
				t.Errorf("%s v%d: %v", api.Name, v, err)
			}
		}
	}
	if _, err := DecodeRequest(Header{Key: 999}, nil, nil); !errors.Is(err, ErrNotServed) {
		t.Error(err)
	}
}

// librdkafka asks for all topics with four bytes where one is meant, which leaves
// one or three at the end; the request is read as Kafka reads it.
func TestMetadataOfLibrdkafka(t *testing.T) {
	for v := int16(9); v <= 13; v++ {
		flags := 2 // allow auto topic creation, include topic authorized operations
		if v <= 10 {
			flags = 3 // and include cluster authorized operations
		}
		for _, create := range []byte{0, 1} {
			body := append([]byte{0, 0, 0, 0, create}, make([]byte, flags)...)
			req, err := DecodeRequest(Header{Key: 3, Version: v}, body, nil)
			if err != nil {
				t.Errorf("v%d %x: %v", v, body, err)
			} else if m := req.(*kmsg.MetadataRequest); m.Topics != nil || m.AllowAutoTopicCreation {
				t.Errorf("v%d %x: %+v", v, body, m)
			}
			if _, err := DecodeRequest(Header{Key: 3, Version: v}, append(body, 0, 0, 0), nil); !errors.Is(err, ErrMalformed) {
				t.Errorf("v%d with more: %v", v, err)
			}
		}
	}
}

func TestRecordSetsAreNotCopied(t *testing.T) {
	body := (&kmsg.ProduceRequest{Topics: []kmsg.ProduceRequestTopic{{Partitions: []kmsg.ProduceRequestTopicPartition{{Records: []byte("records")}}}}}).AppendTo(nil)
	req, err := DecodeRequest(Header{}, body, nil)
	if err != nil {
		t.Fatal(err)
	}
	records := req.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records
	body[strings.Index(string(body), "records")] = 'R'
	if string(records) != "Records" {
		t.Errorf("%q", records)
	}
}

// kmsg would make a struct for each of the elements that are claimed here.
func TestClaimsWithoutBytesTakeNoMemory(t *testing.T) {
	const size = 2 << 20
	claim := func(prefix []byte, n uint32) []byte {
		return append(binary.BigEndian.AppendUint32(prefix, n), make([]byte, size)...)
	}
	null := claim(nil, size/4)
	for i := 4; i < len(null); i++ {
		null[i] = 0xff // string lengths -1
	}
	manyTags := append([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x0f}, make([]byte, size)...)
	compact := func(prefix ...byte) []byte { return append(append(prefix, 0x81, 0x80, 0x40), make([]byte, size)...) }
	for name, c := range map[string]struct {
		key, version int16
		body         []byte
	}{
		"Metadata, null names":                   {3, 0, null},
		"Metadata, more names than there can be": {3, 0, claim(nil, size/2)},
		"Metadata, a billion names":              {3, 0, claim(nil, 1<<30)},
		"Metadata, length -2":                    {3, 0, claim(nil, 0xfffffffe)},
		"Produce, partitions":                    {0, 0, claim([]byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 't'}, size/2)},
		"Fetch, topics":                          {1, 0, claim(make([]byte, 12), size/3)},
		"Metadata, four billion tags":            {3, 9, append([]byte{1, 0, 0, 0}, manyTags[1:]...)},
		"Metadata, two million empty tags":       {3, 9, append([]byte{1, 0, 0, 0}, compact()...)},
		"Metadata, compact":                      {3, 12, compact()},
		"Produce, compact":                       {0, 13, compact(0, 0, 0, 0, 0, 0, 0)},
		"Fetch, compact, forgotten topics":       {1, 12, compact(make([]byte, 25)...)},
		"DeleteTopics, names":                    {20, 0, claim(nil, size/2)},
	} {
		t.Run(name, func(t *testing.T) {
			shape := shapeOf(c.key, c.version)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := decode(Header{Key: c.key, Version: c.version}, shape, c.body, nil); !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > 64<<10 {
				t.Errorf("took %d bytes for a body of %d", took, len(c.body))
			}
		})
	}
}

// The claims of a shape, for versions whether they are served or not.
func TestShapes(t *testing.T) {
	describe := func(key, version int16) string { return shapeOf(key, version).String() }
	for _, c := range []struct {
		key, version int16
		want         string
	}{
		{0, 0, "24[s[4b]]"},
		{0, 3, "s24[s[4b]]"},
		{0, 9, "c24{c{4ct}t}t"},
		{0, 13, "c24{U{4ct}t}t"},
		{1, 0, "444[s[484]]"},
		{1, 3, "4444[s[484]]"},
		{1, 12, "4444144{c{448484t}t}{c{4}t}ct"},
		{1, 18, "444144{U{448484t}t}{U{4}t}ct"},
		{2, 0, "4[s[484]]"},
		{3, 1, "[s]"},
		{3, 13, "{Uct}11t"},
		{18, 2, ""},
		{18, 5, "ccc4t"},
		{19, 1, "[s42[4[4]][ss]]41"},
		{60, 2, "111t"},
		{75, 0, "{ct}4(c4t)t"},
	} {
		if got := describe(c.key, c.version); got != c.want {
			t.Errorf("key %d version %d: %q, want %q", c.key, c.version, got, c.want)
		}
	}
}

// Every request of clients that kmsg knows has a shape, so that serving one more
// is a line in the table.
func TestEveryRequestHasAShape(t *testing.T) {
	for key := range int16(128) {
		req := kmsg.RequestForKey(key)
		// BrokerHeartbeat has an array in a tagged field, and no client
		if req == nil || key == 63 {
			continue
		}
		for v := int16(0); v <= req.MaxVersion(); v++ {
			w := walker{rest: example(key, v).AppendTo(nil)}
			if w.walk(shapeOf(key, v)); w.bad || len(w.rest) > 0 {
				t.Errorf("%s v%d: %d bytes are left", kmsg.NameForKey(key), v, len(w.rest))
			}
		}
	}
}

// String writes a shape as the tests do: a digit is a fixed field of so many
// bytes, U a UUID, s a string, b bytes, c a compact string or compact bytes, t tags,
// [...] an array, {...} a compact array, (...) a nullable struct.
func (s shape) String() string {
	var b strings.Builder
	for _, f := range s {
		switch f.kind {
		case kindFixed:
			b.WriteByte(map[bool]byte{false: byte('0' + f.size), true: 'U'}[f.size == 16])
		case kindArray:
			b.WriteString("[" + f.of.String() + "]")
		case kindCompactArray:
			b.WriteString("{" + f.of.String() + "}")
		case kindNullable:
			b.WriteString("(" + f.of.String() + ")")
		default:
			b.WriteByte(map[fieldKind]byte{kindString: 's', kindBytes: 'b', kindCompact: 'c', kindTags: 't'}[f.kind])
		}
	}
	return b.String()
}

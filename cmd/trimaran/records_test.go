package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/trimaran-io/trimaran/admin"
)

var record = &kgo.Record{Topic: "t", Partition: 3, Offset: 42, Key: []byte("k"), Value: []byte("v\xc3\xa9"), Timestamp: time.UnixMilli(1500)}

func TestFormat(t *testing.T) {
	for format, want := range map[string]string{
		`%v\n`:             "vé\n",
		`%k\t%v`:           "k\tvé",
		`%p/%o %t %T`:      "3/42 t 1500",
		`100%% \\ \0 \r é`: "100% \\ \x00 \r é",
		`plain`:            "plain",
	} {
		f, err := parseFormat(format, false)
		if err != nil {
			t.Errorf("%q: %v", format, err)
		} else if got := string(f([]byte("<"), record)); got != "<"+want {
			t.Errorf("%q gives %q, want %q", format, got, want)
		}
	}
	for _, bad := range []string{`%`, `\`, `%z`, `\z`, `%v%`} {
		if _, err := parseFormat(bad, false); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestFormatJSON(t *testing.T) {
	for want, r := range map[string]*kgo.Record{
		`{"topic":"t","partition":3,"offset":42,"timestamp":1500,"key":"k","value":"vé"}`: record,
		`{"topic":"t","partition":0,"offset":0,"value":""}`:                               {Topic: "t", Value: []byte{}},
		`{"topic":"t","partition":0,"offset":0,"value_base64":"/w=="}`:                    {Topic: "t", Value: []byte{0xff}},
	} {
		if got := string(formatJSON(nil, r)); got != want+"\n" {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestFrom(t *testing.T) {
	const first, end = 10, 20
	for text, want := range map[string]int64{
		"earliest": 10, "latest": 20, "10": 10, "15": 15, "20": 20, "-3": 17, "-100": 10,
		"9": -1, "21": -1,
	} {
		s, err := parseFrom(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := s.within(first, end)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("--from %s: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "start", "1.5", "0x1"} {
		if s, err := parseFrom(bad); err == nil {
			t.Errorf("--from %q is %+v", bad, s)
		}
	}
}

func TestEachLine(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	for in, want := range map[string][]string{
		"":                  nil,
		"a\nb\n":            {"a", "b"},
		"a\nb":              {"a", "b"},
		"\n\n":              {"", ""},
		"a\r\n":             {"a\r"},
		long + "\n" + "end": {long, "end"},
	} {
		var got []string
		if err := eachLine(context.Background(), strings.NewReader(in), func(line []byte) error {
			got = append(got, string(line))
			return nil
		}); err != nil || strings.Join(got, "|") != strings.Join(want, "|") || len(got) != len(want) {
			t.Errorf("%.20q gives %.40q, %v", in, got, err)
		}
	}
	stop := errors.New("stop")
	if err := eachLine(context.Background(), strings.NewReader("a\nb"), func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func TestRecordOf(t *testing.T) {
	if r, err := recordOf([]byte("a:b:c"), ":"); err != nil || string(r.Key) != "a" || string(r.Value) != "b:c" {
		t.Errorf("got %v, %v", r, err)
	}
	if r, err := recordOf([]byte("a:b"), ""); err != nil || r.Key != nil || string(r.Value) != "a:b" {
		t.Errorf("got %v, %v", r, err)
	}
	if r, err := recordOf([]byte("ab"), ":"); err == nil {
		t.Errorf("a line without a key is taken as %v", r)
	}
}

func TestResultSaysWhatWasNotAcknowledged(t *testing.T) {
	ok, bad := &tally{out: bufio.NewWriter(io.Discard)}, &tally{out: bufio.NewWriter(io.Discard)}
	for range 3 {
		ok.done(record, nil)
		bad.done(record, nil)
	}
	bad.done(record, errors.New("broken"))
	if err := ok.result("t", nil); err != nil {
		t.Error(err)
	}
	if err := bad.result("t", nil); err == nil || !strings.Contains(err.Error(), "3 of 4") || !strings.Contains(err.Error(), "broken") {
		t.Errorf("got %v", err)
	}
}

func TestStatusBody(t *testing.T) {
	if got, err := ownBody([]byte{0, 0, 0, 0, 0, 2, '{', '}'}); err != nil || string(got) != "{}" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"", "\x00\x00\x00\x00\x00", "\x00\x00\x00\x00\x00\x03{}", "\x00\x00\xff\xff\xff\xff{}", "\x00\x23\x00\x00\x00\x00"} {
		if got, err := ownBody([]byte(bad)); err == nil {
			t.Errorf("%q is taken as %q", bad, got)
		}
	}
}

func TestStatusIsShownShort(t *testing.T) {
	status := &admin.Status{
		ClusterID: "c1", Controller: "n1",
		Nodes: []admin.NodeStatus{
			{ID: "n1", Alive: true, ClientAddress: "127.0.0.1:9093", PeerAddress: "127.0.0.1:9193", Version: "v1", CatalogRole: "leader", Leaders: 1, Replicas: 2},
			{ID: "n2"},
		},
		Topics: []admin.TopicStatus{{Name: "events", ReplicationFactor: 2, Configs: map[string]string{"b": "2", "a": "1"}, Partitions: []admin.PartitionStatus{
			{Partition: 0, Leader: "n1", Term: 2, HighWatermark: 7, Replicas: []admin.ReplicaStatus{{Node: "n1", Role: "leader"}, {Node: "n2", Role: "offline", Lag: 7}}},
			{Partition: 1, Replicas: []admin.ReplicaStatus{{Node: "n2", Role: "follower", Lag: 3}}},
		}}},
	}
	var out strings.Builder
	if err := showStatus(&out, status); err != nil {
		t.Fatal(err)
	}
	want := `Cluster c1: 1 of 2 nodes up, catalog led by n1, 1 topics, 2 partitions, 1 WITHOUT A LEADER

NODE  STATE  CLIENTS         PEERS           ZONE  VERSION  CATALOG  LEADS  REPLICAS  DISK FREE
n1    up     127.0.0.1:9093  127.0.0.1:9193  -     v1       leader   1      2         -
n2    down   -               -               -     -        -        0      0         -

TOPIC   PARTITION  LEADER  TERM  START  END  REPLICAS
events  0          n1      2     0      7    n1, n2 (offline)
events  1          none    0     0      0    n2 (3 behind)
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if _, err := pickTopics(status, []string{"none"}); err == nil {
		t.Error("a topic that is not there is found")
	}
	out.Reset()
	if err := describeTopics(&out, status.Topics); err != nil || !strings.Contains(out.String(), "  a=1\n  b=2\n") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

package membership

import (
	"bytes"
	"log/slog"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestMetaComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 10, 40)
		m := Member{
			Identity: "x" + text.Draw(t, "identity"), NodeID: text.Draw(t, "node"), Incarnation: text.Draw(t, "incarnation"),
			ClusterID: text.Draw(t, "cluster"), PeerAddr: text.Draw(t, "peer"), ClientAddr: text.Draw(t, "client"),
			Zone: text.Draw(t, "zone"), Version: text.Draw(t, "version"), Expect: rapid.IntRange(0, maxExpect).Draw(t, "expect"),
			Leaving: rapid.Bool().Draw(t, "leaving"),
		}
		started := rapid.Int64Range(0, 1<<60).Draw(t, "started")
		b, err := encodeMeta(m, started)
		if err != nil {
			t.Fatal(err)
		}
		got, at, err := decodeMeta(append(b, "of a later version"...))
		if err != nil || got != m || at != started {
			t.Fatalf("%+v %d %v", got, at, err)
		}
		for n := range b {
			if _, _, err := decodeMeta(b[:n]); err == nil {
				t.Fatalf("cut at %d: no error", n)
			}
		}
	})
}

func FuzzDecodeMeta(f *testing.F) {
	b, err := encodeMeta(Member{Identity: "n1.0000abcd", NodeID: "n1", PeerAddr: "127.0.0.1:9092", Expect: 3}, 1700000000000)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{metaVersion, 1, 1, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, started, err := decodeMeta(b)
		if err != nil {
			return
		}
		again, err := encodeMeta(m, started)
		if err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		if got, at, err := decodeMeta(again); err != nil || got != m || at != started {
			t.Fatalf("%+v became %+v, %v", m, got, err)
		}
	})
}

func FuzzParseHints(f *testing.F) {
	f.Add([]byte(`{"version":1,"gossip":["127.0.0.1:1"]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if addrs, err := parseHints(b); err == nil && len(addrs) > maxHints {
			t.Fatalf("%d addresses", len(addrs))
		}
	})
}

func TestHintsKeepTheDepartedBehindTheLiving(t *testing.T) {
	got := mergeHints([]string{"c", "b"}, []string{"a", "b", "d"})
	if want := []string{"c", "b", "a", "d"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	many := make([]string, 2*maxHints)
	for i := range many {
		many[i] = string(rune('0' + i))
	}
	if got := mergeHints(nil, many); len(got) != maxHints {
		t.Errorf("%d kept", len(got))
	}
}

func TestLogLinesAreMappedToLevels(t *testing.T) {
	var b bytes.Buffer
	l := newLogAdapter(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})))
	l.Printf("[DEBUG] memberlist: Stream connection from=127.0.0.1")
	l.Printf("[WARN] memberlist: ignoring alive message for 'x'")
	l.Printf("[WARN] memberlist: Refuting a suspect message")
	l.Printf("[ERR] memberlist: Failed to send")
	if got, want := b.String(), "level=WARN msg=\"gossip: Failed to send\"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

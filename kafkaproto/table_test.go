package kafkaproto

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestServedTableIsSound(t *testing.T) {
	last := int16(-1)
	for _, a := range Served {
		key := a.Key.Int16()
		if key <= last {
			t.Errorf("%s: keys rise, and none is there twice", a.Name)
		}
		last = key
		req := kmsg.RequestForKey(key)
		if a.Name != kmsg.NameForKey(key) || a.Min < 0 || a.Min > a.Max || a.Max > req.MaxVersion() {
			t.Errorf("%+v", a)
		}
		if got, ok := Lookup(key); !ok || got.Name != a.Name {
			t.Errorf("%s is not found", a.Name)
		}
		if a.Serves(a.Min-1) || !a.Serves(a.Min) || !a.Serves(a.Max) || a.Serves(a.Max+1) {
			t.Errorf("%s serves", a.Name)
		}
	}
	if _, ok := Lookup(-1); ok {
		t.Error("key -1 is served")
	}
}

func TestWriteTable(t *testing.T) {
	var b strings.Builder
	if err := WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != len(Served)+2 {
		t.Errorf("%d lines", len(lines))
	}
	if want := "\n| 18 | ApiVersions | 0 to 5 | "; !strings.Contains(b.String(), want) {
		t.Errorf("no %q in %s", want, b.String())
	}
}

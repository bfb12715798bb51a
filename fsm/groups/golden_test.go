package groups

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// TestGoldenBytes holds the bytes of commands and snapshots: logs and snapshots of earlier versions
// are full of them, and a cluster runs two versions while it is upgraded. testdata/golden.txt has a
// line for each, its name and its bytes in hex; what is written must be what stands there, and what
// stands there must be read.
func TestGoldenBytes(t *testing.T) {
	text, err := os.ReadFile("testdata/golden.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		name, bytes, _ := strings.Cut(strings.TrimSpace(line), " ")
		want[name] = bytes
	}
	check := func(name string, got []byte) {
		t.Helper()
		if hex := hex.EncodeToString(got); hex != want[name] {
			t.Errorf("%s is written\n%s, want\n%s", name, hex, want[name])
		}
	}

	state := NewState()
	check("snapshot-empty", state.Snapshot())
	names := []string{"command-empty", "command-set", "command-delete", "command-joined"}
	for i, command := range append(seeds(), seeds()[1]) {
		if i < len(names) {
			check(names[i], command)
		}
		if err := state.Apply(command); err != nil {
			t.Fatal(err)
		}
	}
	var more Changes
	more.SetOffset("a simple group", "t2", [16]byte{15: 2}, 1<<31-1, Offset{Offset: 1 << 62, LeaderEpoch: 1<<31 - 1, Metadata: "ü", CommittedAt: -1})
	more.SetOffset("a simple group", "t2", [16]byte{15: 2}, 0, Offset{LeaderEpoch: -1})
	more.SetOffset("", "t1", [16]byte{}, 0, Offset{Offset: -1})
	more.SetGroup("empty", Group{Generation: -1, Since: 1 << 40})
	check("command-more", Encode(more))
	if err := state.Apply(Encode(more)); err != nil {
		t.Fatal(err)
	}
	check("snapshot-full", state.Snapshot())

	for i, command := range transactionalSeeds() {
		check("command-"+[]string{"pending", "ended", "producer-gone"}[i], command)
		if err := state.Apply(command); err != nil {
			t.Fatal(err)
		}
		if i < 2 {
			check("snapshot-"+[]string{"pending", "ended"}[i], state.Snapshot())
		}
	}

	for name, text := range want {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if kind, _, _ := strings.Cut(name, "-"); kind == "snapshot" {
			restored, err := RestoreState(b)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			check(name, restored.Snapshot())
		} else if err := NewState().Apply(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

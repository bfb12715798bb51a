package transactions

import (
	"encoding/hex"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
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
	seen := make(map[string]bool)
	check := func(name string, got []byte) {
		t.Helper()
		seen[name] = true
		if hex := hex.EncodeToString(got); hex != want[name] {
			t.Errorf("%s is written\n%s, want\n%s", name, hex, want[name])
		}
	}

	state := NewState()
	check("snapshot-empty", state.Snapshot())
	for i, name := range []string{"command-empty", "command-set", "command-add", "command-joined"} {
		check(name, seeds()[i])
		if err := state.Apply(seeds()[i]); err != nil {
			t.Fatal(err)
		}
	}
	check("snapshot-open", state.Snapshot())
	var more Changes
	more.Set("ü", 0, math.MaxUint64, Producer{
		ProducerID: math.MaxInt64, Previous: math.MinInt64, Next: -1, Epoch: math.MaxInt16, LastEpoch: math.MinInt16,
		Number: math.MinInt32, Timeout: math.MaxInt32, Phase: CompleteAbort, Version: 255, Start: -1, Updated: 1 << 41,
	})
	more.Delete("a", 3)
	check("command-more", Encode(more))
	if err := state.Apply(Encode(more)); err != nil {
		t.Fatal(err)
	}
	check("snapshot-full", state.Snapshot())

	for name, text := range want {
		if !seen[name] {
			t.Errorf("%s is written by nobody", name)
		}
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

// seeds are commands one after the other: nothing, two ids, what the transaction of one touches,
// and the same joined, which is void by then.
func seeds() [][]byte {
	var c, d Changes
	c.Set("a", 0, 1, Producer{ProducerID: 7, Previous: 7, Next: -1, LastEpoch: -1, Timeout: 60000, Start: -1, Updated: 1000})
	c.Set("b", 0, 2, Producer{ProducerID: 8, Previous: 6, Next: 9, Epoch: 32767, LastEpoch: 32766, Number: 5, Phase: PrepareCommit, Version: 2, Start: 5, Updated: 6})
	d.Set("a", 1, 3, Producer{ProducerID: 7, Previous: 7, Next: -1, LastEpoch: -1, Number: 1, Timeout: 60000, Phase: Ongoing, Version: 2, Start: 2000, Updated: 2000})
	d.Add("a", 3, Scope{
		Partitions: []fsm.PartitionID{{Topic: fsm.TopicID{2}, Partition: 300}, {Topic: fsm.TopicID{1}, Partition: 1}, {Topic: fsm.TopicID{2}}},
		Groups:     []string{"h", "g"},
	})
	return [][]byte{Encode(), Encode(c), Encode(d), Encode(c, d)}
}

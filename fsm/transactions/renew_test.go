package transactions

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/trimaran-io/trimaran/fsm"
)

// TestRenewedIDsGiveNothingTwice: whoever has a transactional id next gets another producer id,
// what was ongoing is aborted, and what was decided is not decided otherwise.
func TestRenewedIDsGiveNothingTwice(t *testing.T) {
	partition := fsm.PartitionID{Topic: fsm.TopicID{7}, Partition: 3}
	scope := Scope{Partitions: []fsm.PartitionID{partition}, Groups: []string{"g"}}
	for before, after := range map[Phase]Phase{
		Empty: Empty, Ongoing: PrepareAbort, PrepareCommit: PrepareCommit, PrepareAbort: PrepareAbort, CompleteCommit: Empty, CompleteAbort: Empty,
	} {
		s := NewState()
		was := Producer{ProducerID: 70, Previous: 60, Next: 80, Epoch: 5, LastEpoch: 4, Number: 9, Timeout: 1000, Phase: before, Version: 2, Start: 11, Updated: 12}
		var c Changes
		c.Set("a", 0, 1, Producer{Phase: Ongoing})
		c.Add("a", 1, scope)
		c.Set("a", 1, 2, was)
		if err := s.Apply(Encode(c)); err != nil {
			t.Fatal(err)
		}
		had := s.Scope("a")
		commands := s.Renew(1 << 20)
		if len(commands) != 1 {
			t.Fatalf("%s: %d commands", before, len(commands))
		}
		if err := s.Apply(commands[0]); err != nil {
			t.Fatal(err)
		}
		want := was
		if want.Phase = after; before.Preparing() {
			want.LastEpoch = Renews // the marker stays what it was
		} else {
			want.Previous, want.Next, want.Epoch, want.LastEpoch = 70, -1, UsedUp, -1
		}
		got, revision := s.LookUp("a")
		if got != want || revision != 3 || fmt.Sprint(s.Scope("a")) != fmt.Sprint(had) {
			t.Errorf("%s: %+v of revision %d that touches %v, want %+v, %v", before, got, revision, s.Scope("a"), want, had)
		}
		if again := s.Renew(1 << 20); len(again) != 0 {
			t.Errorf("%s: it is renewed twice", before)
		}
	}
}

// TestRenewing any state gives the same commands on all replicas, none larger than it may be.
func TestRenewing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := NewState()
		for range rapid.IntRange(1, 30).Draw(t, "commands") {
			if err := s.Apply(drawCommand(t, s)); err != nil {
				t.Fatal(err)
			}
		}
		restored, err := RestoreState(s.Snapshot())
		if err != nil {
			t.Fatal(err)
		}
		size := rapid.IntRange(1, 200).Draw(t, "size")
		commands, others := s.Renew(size), restored.Renew(size)
		if len(commands) != len(others) || len(commands) > s.Len() {
			t.Fatalf("%d commands of %d ids, and %d", len(commands), s.Len(), len(others))
		}
		for i, command := range commands {
			if !bytes.Equal(command, others[i]) {
				t.Fatalf("command %d differs", i)
			}
			if parsed, err := ParseCommand(command); err != nil || len(command) > size+4 && len(parsed.changes) > 1 {
				t.Fatalf("command %d has %d bytes of at most %d: %v", i, len(command), size, err)
			}
			if err := s.Apply(command); err != nil {
				t.Fatal(err)
			}
		}
		checkInvariants(t, s)
		for _, id := range s.IDs() {
			if p, _ := s.LookUp(id); p.Phase == Ongoing || p.Epoch != UsedUp && !(p.Phase.Preparing() && p.LastEpoch == Renews) {
				t.Fatalf("%q goes on: %+v", id, p)
			}
		}
	})
}

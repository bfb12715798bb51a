package fsm

import (
	"encoding/json"
	"errors"
	"testing"
)

func TestEpochsAreTermsCutTo31Bits(t *testing.T) {
	for term, want := range map[Term]LeaderEpoch{0: 0, 7: 7, 1<<31 - 1: 1<<31 - 1, 1 << 31: 0, 1<<32 + 5: 5} {
		if got := term.Epoch(); got != want {
			t.Errorf("term %d has epoch %d, want %d", term, got, want)
		}
	}
}

func FuzzParsePartitionID(f *testing.F) {
	for _, s := range []string{
		"000102030405060708090a0b0c0d0e0f-0", "000102030405060708090a0b0c0d0e0f-2147483647",
		"000102030405060708090a0b0c0d0e0f-+1", "000102030405060708090a0b0c0d0e0f-01", "000102030405060708090A0B0C0D0E0F-1",
		"000102030405060708090a0b0c0d0e0f--1", "-", "", "catalog", "00-1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParsePartitionID(s)
		if err != nil {
			return
		}
		// Groups and their folders are named so: two names must not mean one group.
		if id.String() != s || id.Partition < 0 {
			t.Errorf("%q is read as %q", s, id)
		}
	})
}

func TestTopicIDsTravelAsJSON(t *testing.T) {
	id := TopicID{0: 0xab, 15: 1}
	data, err := json.Marshal(map[TopicID]TopicID{id: id})
	if err != nil || string(data) != `{"ab000000000000000000000000000001":"ab000000000000000000000000000001"}` {
		t.Fatalf("%s, %v", data, err)
	}
	var back map[TopicID]TopicID
	if err := json.Unmarshal(data, &back); err != nil || back[id] != id {
		t.Errorf("%v, %v", back, err)
	}
	for _, bad := range []string{`"ab"`, `"zz000000000000000000000000000001"`, `7`} {
		if json.Unmarshal([]byte(bad), &id) == nil {
			t.Errorf("%s was taken for an id", bad)
		}
	}
}

// What no partition can be is refused, whoever computed the CRC.
func TestImpossiblePartitionsAreNotRestored(t *testing.T) {
	for name, spoil := range map[string]func(*PartitionState){
		"log start above the end": func(p *PartitionState) { p.logStart = p.next + 1 },
	} {
		p := samplePartition()
		spoil(p)
		if _, err := RestorePartition(p.Snapshot()); !errors.Is(err, ErrSnapshot) {
			t.Errorf("%s: restored, %v", name, err)
		}
	}
}

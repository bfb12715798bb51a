package fsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
)

func TestErrorsHaveTextsAndCodes(t *testing.T) {
	seen := map[string]bool{}
	for e := ErrUnknown; e < lastError; e++ {
		if e.Error() == "" || seen[e.Error()] {
			t.Errorf("error %d has no text of its own", e)
		}
		seen[e.Error()] = true
		for _, wrapped := range []error{e, fmt.Errorf("while appending: %w", e), errors.Join(errors.New("x"), e), coded{e, errors.New("x")}} {
			if Code(wrapped) != e {
				t.Errorf("Code(%v) is %d, want %d", wrapped, Code(wrapped), e)
			}
		}
	}
	for _, e := range []Error{0, lastError, 9999} { // as another node may send them
		if e.Error() != "unlisted error" || Code(e) != ErrUnknown {
			t.Errorf("error %d is taken for one of the list", e)
		}
	}
	if Code(nil) != 0 || Code(errors.New("x")) != ErrUnknown {
		t.Error("no error, or one from elsewhere, has a wrong code")
	}
}

// Trying again after these is safe, and after no others: a record that may be in
// the log must not be written twice.
func TestOnlyWhatIsSurelyNotAppendedIsTriedAgain(t *testing.T) {
	safe := map[Error]bool{ErrNotLeader: true, ErrNoLeader: true, ErrVoid: true, ErrShuttingDown: true}
	for e := ErrUnknown; e < lastError; e++ {
		if NotAppended(fmt.Errorf("x: %w", e)) != safe[e] {
			t.Errorf("NotAppended(%v) is %v", e, !safe[e])
		}
	}
	if NotAppended(nil) || NotAppended(errors.New("x")) {
		t.Error("an unknown error is taken for a safe one")
	}
}

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

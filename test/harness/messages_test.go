package harness

import (
	"reflect"
	"testing"
)

func TestMessagesComeBackAsWritten(t *testing.T) {
	var set []byte
	var want []Entry
	for n := range int64(3) {
		i := Attempt{7, int32(n), 2}
		m := Entry{Offset: n, Key: []byte(i.Key()), Value: []byte(i.Value(valueSize))}
		want = append(want, m)
		set = Message(set, m.Offset, 0, m.Key, m.Value)
	}
	got, _, err := Messages(set)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, %v", got, err)
	}
	if e := RecordOf(got[1], valueSize); e != (Record{Attempt: Attempt{7, 1, 2}}) {
		t.Fatalf("taken as %+v", e)
	}
	if e := RecordOf(Entry{Key: got[1].Key, Value: got[2].Value}, valueSize); !e.Foreign {
		t.Fatal("a value under another's key passes")
	}
	got, cut, err := Messages(set[:len(set)-1])
	if err != nil || !cut || len(got) != 2 {
		t.Fatalf("a cut set gives %d messages, %v", len(got), err)
	}
	set[len(set)-1] ^= 1
	if _, _, err := Messages(set); err == nil {
		t.Fatal("a flipped bit passes")
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(Message(nil, 0, 0, []byte("k"), []byte("v")))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, set []byte) {
		messages, _, err := Messages(set)
		if err != nil {
			return
		}
		var again []byte
		for _, m := range messages {
			if m.Key == nil || m.Value == nil || m.Magic != 0 || m.Attributes != m.Attributes&7 {
				return
			}
			again = Message(again, m.Offset, m.Codec, m.Key, m.Value)
		}
		if len(again) > len(set) || string(again) != string(set[:len(again)]) {
			t.Fatal("what was parsed is not what was there")
		}
	})
}

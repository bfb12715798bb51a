package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

func joined(parts [][]byte) []byte { return bytes.Join(parts, nil) }

func TestAppendCallsComeBack(t *testing.T) {
	id := fsm.PartitionID{Topic: newUUID(), Partition: 7}
	batches := [][]byte{batchOf("a", "b"), batchOf("c")}
	payload := joined(appendCall(id, 42, batches))
	gotID, term, got, err := parseAppend(payload)
	if err != nil || gotID != id || term != 42 || !reflect.DeepEqual(got, batches) {
		t.Fatalf("%v %d %x, %v", gotID, term, got, err)
	}
	for cut := range payload {
		if _, _, _, err := parseAppend(payload[:cut]); err == nil {
			t.Fatalf("cut at %d it is taken", cut)
		}
	}
	// A bit that flips anywhere in a batch but in its stamps is found before it is
	// proposed: offset (8 bytes) and epoch (4, behind 4 of length) are written anew.
	first := len(payload) - len(batches[1]) - 4 - len(batches[0])
	for i := first; i < first+len(batches[0]); i++ {
		if at := i - first; at < 8 || at >= 12 && at < 16 {
			continue
		}
		flipped := bytes.Clone(payload)
		flipped[i] ^= 0x10
		if _, _, _, err := parseAppend(flipped); err == nil {
			t.Fatalf("byte %d of the batch flipped and it is taken", i-first)
		}
	}
}

func TestRepliesComeBack(t *testing.T) {
	payload, err := decodeReply(encodeReply([]byte("payload"), nil))
	if err != nil || string(payload) != "payload" {
		t.Errorf("%q, %v", payload, err)
	}
	want := errNotLeader{hint{"n2.0badcafe", 9}}
	var got errNotLeader
	if _, err := decodeReply(encodeReply(nil, fmt.Errorf("wrapped: %w", want))); !errors.As(err, &got) || got != want {
		t.Errorf("%v", err)
	}
	if _, err := decodeReply(encodeReply(nil, fmt.Errorf("%w: details", outcome.ErrTopicExists))); outcome.Code(err) != outcome.ErrTopicExists || err.Error() != "topic already exists: details" {
		t.Errorf("%v", err)
	}
	if _, err := decodeReply(encodeReply(nil, errors.New("something"))); outcome.Code(err) != outcome.ErrUnknown {
		t.Errorf("%v", err)
	}
}

func FuzzParseAppend(f *testing.F) {
	f.Add(joined(appendCall(fsm.PartitionID{Partition: 1}, 3, [][]byte{batchOf("a"), batchOf("b")})))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, payload []byte) {
		id, term, batches, err := parseAppend(payload)
		if err == nil && !bytes.Equal(joined(appendCall(id, term, batches)), payload) {
			t.Fatal("what was taken is not what was sent")
		}
	})
}

func FuzzDecodeReply(f *testing.F) {
	f.Add(encodeReply([]byte("x"), nil))
	f.Add(encodeReply(nil, errNotLeader{hint{"n1.00000000", 1}}))
	f.Add(encodeReply(nil, outcome.ErrTimeout))
	f.Fuzz(func(t *testing.T, reply []byte) {
		if payload, err := decodeReply(reply); err == nil && len(payload) > len(reply) {
			t.Fatal("more came out than went in")
		} else if err != nil && outcome.Code(err) == 0 {
			t.Fatalf("an error without a code: %v", err)
		}
	})
}

// FuzzIdentityFile gives a node any node.json: it takes it or says what is wrong.
func FuzzIdentityFile(f *testing.F) {
	f.Add([]byte(`{"format":1,"node_id":"n1","incarnation":"0123abcd"}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`{"format":1,"node_id":"n1","incarnation":"0123abcd","forming":{"nodes":[{}]}}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, "node.json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		d := &dataDir{path: dir}
		file, err := d.loadIdentity("")
		if err == nil && (fsm.CheckNodeID(file.NodeID) != nil || len(file.Incarnation) != 8) {
			t.Fatalf("taken: %+v", file)
		}
	})
}

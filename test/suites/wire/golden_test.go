package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// exchanges are about the topic "golden", one partition, empty before the first
// of them. They go over one connection, in this order, each written down whole. What
// depends on the machine (the broker's host, port and id) is compared in
// TestGoldenMetadata.
var exchanges = []struct{ name, request, answer string }{
	{"produce three messages", `
		00000084            # size 132
		0000 0000           # Produce, version 0
		00000001            # correlation id
		0004 77697265       # client id "wire"
		ffff                # acks -1
		00002710            # timeout 10,000 ms
		00000001            # one topic
		0006 676f6c64656e   # "golden"
		00000001            # one partition
		00000000            # partition 0
		00000058            # message set of 88 bytes
		0000000000000000 00000010 00000000 00 00 ffffffff 00000002 6f6e              # nil -> "on"; CRCs by fixCRCs
		0000000000000000 00000016 00000000 00 00 00000003 6b6579 00000005 7468726565 # "key" -> "three"
		0000000000000000 0000000e 00000000 00 00 ffffffff ffffffff                   # nil -> nil`,
		`00000022 00000001
		00000001 0006 676f6c64656e
		00000001 00000000 0000 0000000000000000`},
	{"produce one more with acks 1", `
		00000046 0000 0000 00000002 0004 77697265
		0001 000003e8
		00000001 0006 676f6c64656e
		00000001 00000000
		0000001a 0000000000000000 0000000e 00000000 00 00 ffffffff 00000000`,
		`00000022 00000002
		00000001 0006 676f6c64656e
		00000001 00000000 0000 0000000000000003`},
	{"fetch from 0", `
		0000003a 0001 0000 00000003 0004 77697265
		ffffffff            # replica id -1
		00000064            # max wait 100 ms
		00000001            # min bytes
		00000001 0006 676f6c64656e
		00000001 00000000
		0000000000000000    # offset 0
		00100000            # max bytes`,
		`00000098 00000003
		00000001 0006 676f6c64656e
		00000001 00000000 0000
		0000000000000004    # high watermark
		00000072
		0000000000000000 00000010 00000000 00 00 ffffffff 00000002 6f6e
		0000000000000001 00000016 00000000 00 00 00000003 6b6579 00000005 7468726565
		0000000000000002 0000000e 00000000 00 00 ffffffff ffffffff
		0000000000000003 0000000e 00000000 00 00 ffffffff 00000000`},
	{"fetch at the end finds nothing", `
		0000003a 0001 0000 00000004 0004 77697265
		ffffffff 00000001 00000001
		00000001 0006 676f6c64656e
		00000001 00000000 0000000000000004 00100000`,
		`00000026 00000004
		00000001 0006 676f6c64656e
		00000001 00000000 0000 0000000000000004 00000000`},
	{"fetch beyond the end", `
		0000003a 0001 0000 00000005 0004 77697265
		ffffffff 00000001 00000001
		00000001 0006 676f6c64656e
		00000001 00000000 0000000000000005 00100000`,
		`00000026 00000005
		00000001 0006 676f6c64656e
		00000001 00000000 0001 ffffffffffffffff 00000000 # OFFSET_OUT_OF_RANGE, high watermark -1`},
	{"fetch of a partition that is not there", `
		0000003a 0001 0000 00000006 0004 77697265
		ffffffff 00000001 00000001
		00000001 0006 676f6c64656e
		00000001 00000007 0000000000000000 00100000`,
		`00000026 00000006
		00000001 0006 676f6c64656e
		00000001 00000007 0003 ffffffffffffffff 00000000 # UNKNOWN_TOPIC_OR_PARTITION`},
	{"offsets: latest", `
		00000032 0002 0000 00000007 0004 77697265
		ffffffff
		00000001 0006 676f6c64656e
		00000001 00000000
		ffffffffffffffff    # -1
		0000000a            # at most 10`,
		`00000026 00000007
		00000001 0006 676f6c64656e
		00000001 00000000 0000 00000001 0000000000000004`},
	{"offsets: earliest", `
		00000032 0002 0000 00000008 0004 77697265
		ffffffff
		00000001 0006 676f6c64656e
		00000001 00000000 fffffffffffffffe 00000001`,
		`00000026 00000008
		00000001 0006 676f6c64656e
		00000001 00000000 0000 00000001 0000000000000000`},
	{"offsets before any time", `
		00000032 0002 0000 00000009 0004 77697265
		ffffffff
		00000001 0006 676f6c64656e
		00000001 00000000 0000000000000000 00000001`,
		`0000001e 00000009
		00000001 0006 676f6c64656e
		00000001 00000000 0000 00000000`},
	{"offsets of a partition that is not there", `
		00000032 0002 0000 0000000a 0004 77697265
		ffffffff
		00000001 0006 676f6c64656e
		00000001 00000009 ffffffffffffffff 00000001`,
		`0000001e 0000000a
		00000001 0006 676f6c64656e
		00000001 00000009 0003 00000000`},
	{"produce to a partition that is not there", `
		00000046 0000 0000 0000000b 0004 77697265
		ffff 000003e8
		00000001 0006 676f6c64656e
		00000001 00000005
		0000001a 0000000000000000 0000000e 00000000 00 00 ffffffff 00000000`,
		`00000022 0000000b
		00000001 0006 676f6c64656e
		00000001 00000005 0003 ffffffffffffffff`},
	{"produce with a wrong CRC", `
		00000046 0000 0000 0000000c 0004 77697265
		ffff 000003e8
		00000001 0006 676f6c64656e
		00000001 00000000
		0000001a 0000000000000000 0000000e deadbeef 00 00 ffffffff 00000000`,
		`00000022 0000000c
		00000001 0006 676f6c64656e
		00000001 00000000 0002 ffffffffffffffff`},
	{"produce of an empty topic list", `
		00000018 0000 0000 0000000d 0004 77697265
		ffff 000003e8
		00000000`,
		`00000008 0000000d 00000000`},
}

// fixCRCs writes the right CRC in every message of a set; the texts above have
// 00000000 there. A CRC of deadbeef stays wrong on purpose. The CRC is that of Go's hash/crc32,
// IEEE, over magic to value.
func fixCRCs(set []byte) {
	for len(set) >= 26 {
		size := int(binary.BigEndian.Uint32(set[8:]))
		if binary.BigEndian.Uint32(set[12:]) != 0xdeadbeef {
			binary.BigEndian.PutUint32(set[12:], crc32.ChecksumIEEE(set[16:12+size]))
		}
		set = set[12+size:]
	}
}

func TestGoldenExchanges(t *testing.T) {
	c := harness.Shared(t)
	create(t, c, "golden", 1)
	// The leader's own node: another's replica may be a moment behind, and then a
	// fetch answers with what that replica has.
	leader, err := c.Leader("golden", 0, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	w := dial(t, leader.Addr())
	for _, e := range exchanges {
		t.Run(e.name, func(t *testing.T) {
			request := unhex(t, e.request)
			key := binary.BigEndian.Uint16(request[4:])
			if key == 0 && len(request) > 48 {
				fixCRCs(request[48:])
			}
			if got, want := int(binary.BigEndian.Uint32(request)), len(request)-4; got != want {
				t.Fatalf("the golden request says size %d and has %d (%#x)", got, want, want)
			}
			if err := w.Send(request); err != nil {
				t.Fatal(err)
			}
			correlation, body, err := w.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			got := harness.Frame(append(harness.Int32(nil, correlation), body...))
			want := unhex(t, e.answer)
			if key == 1 && len(want) > 42 {
				fixCRCs(want[42:])
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("answer differs\n got %s\nwant %s", hex.EncodeToString(got), hex.EncodeToString(want))
			}
		})
	}
}

// Metadata names exactly one broker, with the address that the client used, and
// that broker leads every partition, with no replicas and no in-sync replicas.
func TestGoldenMetadata(t *testing.T) {
	c := harness.Shared(t)
	topic := harness.Topic("meta")
	create(t, c, topic, 3)
	var ids []int32
	for i, addr := range append(c.Addrs(), c.ShimAddr()) {
		w := dial(t, addr)
		host, p, _ := net.SplitHostPort(addr)
		port, _ := strconv.Atoi(p)
		answer, err := w.Do(3, 0, harness.Str(harness.Int32(nil, 1), topic))
		if err != nil {
			t.Fatalf("listener %d: %v", i, err)
		}
		m, err := harness.ReadMetadata(answer)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Brokers) != 1 {
			t.Fatalf("%s: %d brokers", addr, len(m.Brokers))
		}
		id := m.Brokers[0].ID
		ids = append(ids, id)
		// Now that the one free number, the broker id, is known, the whole answer is.
		want := harness.Int32(nil, 1)
		want = harness.Int32(harness.Str(harness.Int32(want, id), host), int32(port))
		want = harness.Str(harness.Int16(harness.Int32(want, 1), 0), topic)
		want = harness.Int32(want, 3)
		for p := range int32(3) {
			// no error, partition, leader
			want = harness.Int32(harness.Int32(harness.Int16(want, 0), p), id)
			want = harness.Int32(harness.Int32(want, 0), 0) // no replicas, none in sync
		}
		if !bytes.Equal(answer, want) {
			t.Errorf("%s\n got %x\nwant %x", addr, answer, want)
		}
	}
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("broker ids %v differ from listener to listener", ids)
		}
	}
}

// An unknown topic is created by asking for it, as 0.8 does: LEADER_NOT_AVAILABLE
// (5) until it can be used, then no error. A name that Kafka forbids is
// INVALID_TOPIC (17) and creates nothing.
func TestMetadataCreatesOnFirstUse(t *testing.T) {
	c := harness.Shared(t)
	w := dial(t, c.Node(3).Addr())
	topic := harness.Topic("first-use")
	codes := map[int16]bool{}
	w.Conn.SetDeadline(time.Now().Add(2 * time.Minute))
	err := harness.Eventually(time.Minute, func() bool {
		m, err := w.Metadata(topic)
		if err != nil {
			t.Fatal(err)
		}
		codes[m.Topics[0].Code] = true
		return m.Topics[0].Code == 0
	})
	if err != nil {
		t.Fatalf("%v: codes seen %v", err, codes)
	}
	delete(codes, 0)
	delete(codes, 5)
	if len(codes) > 0 {
		t.Errorf("other codes on the way: %v", codes)
	}
	for _, bad := range []string{"a/b", "", "..", "a b", fmt.Sprintf("%0250d", 1)} {
		m, err := w.Metadata(bad)
		if err != nil {
			t.Fatalf("topic %q: %v", bad, err)
		}
		if len(m.Topics) != 1 || m.Topics[0].Code != 17 {
			t.Errorf("topic %q: %+v, want INVALID_TOPIC (17)", bad, m.Topics)
		}
	}
	all, err := w.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, tm := range all.Topics {
		found = found || tm.Name == topic
		if tm.Name == "a/b" {
			t.Errorf("a forbidden name was created")
		}
	}
	if !found {
		t.Errorf("no topic named means all: %q is missing", topic)
	}
}

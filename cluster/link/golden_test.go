package link

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// golden compares bytes that nodes of other versions read with what they have always been.
func golden(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if hex.EncodeToString(got) != want {
		t.Errorf("%s is\n%x, and was\n%s", what, got, want)
	}
}

// TestFramesStayAsTheyAre: nodes of different versions read each other's frames.
func TestFramesStayAsTheyAre(t *testing.T) {
	for _, c := range []struct {
		name string
		typ  uint8
		body string
		want string
	}{
		{"ping", framePing, "", "0000000001070000010203040506070853c1bf85"},
		{"pong", framePong, "", "000000000207000001020304050607080053c3d5"},
		{"call", frameCall, "call", "00000004030700000102030405060708c60ea5d963616c6c"},
		{"cancel", frameCancel, "", "00000000040700000102030405060708a7773b75"},
		{"answer", frameAnswer, "answer", "00000006050700000102030405060708d8e7d17c616e73776572"},
		{"raft", frameRequest, "\x01graft", "00000006060700000102030405060708d1ca900e016772616674"},
		{"chunk", frameChunk, "chunk", "00000005070700000102030405060708957572ed6368756e6b"},
		{"credit", frameCredit, "\x00\x10\x00\x00", "00000004080700000102030405060708cef767b100100000"},
		{"progress", frameProgress, "", "00000000090700000102030405060708dda368f4"},
		{"sign", frameBeacon, "sign", "000000040a0700000102030405060708241a132e7369676e"},
	} {
		golden(t, c.name, bytes.Join(newMessage(c.typ, 7, 0x0102030405060708, []byte(c.body)).parts, nil), c.want)
	}
	var b bytes.Buffer
	h := hello{versionMin: versionMin, versionMax: versionMax, class: 1, boot: 2, generation: 3, identity: "n1.0000abcd", target: "n2.00000000", clusterID: "c"}
	if err := writeHello(&b, h.encode()); err != nil {
		t.Fatal(err)
	}
	golden(t, "hello", b.Bytes(), "54524d50002f0001000201000000000000000200000000000000030b6e312e30303030616263640b6e322e30303030303030300163ac16d1ff")
	b.Reset()
	a := helloAnswer{version: 2, reason: reasonNoMember, identity: "n2.00000000", clusterID: "c", text: "no", boot: 4}
	if err := writeHello(&b, a.encode()); err != nil {
		t.Fatal(err)
	}
	golden(t, "the hello's answer", b.Bytes(), "54524d50001c0002050b6e322e30303030303030300163026e6f0000000000000004b7a9f7c0")
}

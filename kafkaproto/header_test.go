package kafkaproto

import (
	"bytes"
	"errors"
	"testing"
)

func TestParseHeader(t *testing.T) {
	for _, c := range []struct {
		name, frame string
		want        Header
		body        string
	}{
		{"version 1", "0003 0000 00000102 0004 74657374 00000000",
			Header{Key: 3, CorrelationID: 0x102, ClientID: "test", HasClientID: true}, "\x00\x00\x00\x00"},
		{"null client id", "0003 0000 ffffffff ffff 01",
			Header{Key: 3, CorrelationID: -1}, "\x01"},
		{"empty client id, no body", "0003 0000 00000000 0000",
			Header{Key: 3, HasClientID: true}, ""},
		{"version 2, no tagged fields", "0012 0003 00000001 0001 63 00 01 01 00",
			Header{Key: 18, Version: 3, CorrelationID: 1, ClientID: "c", HasClientID: true}, "\x01\x01\x00"},
		{"version 2, two tagged fields", "0012 0003 00000001 ffff 02 00 02 aabb 8001 00 07",
			Header{Key: 18, Version: 3, CorrelationID: 1}, "\x07"},
		{"an API that is not served, flexible", "0003 000c 00000001 ffff 00 07",
			Header{Key: 3, Version: 12, CorrelationID: 1}, "\x07"},
		{"ApiVersions of a time to come", "0012 0063 00000001 ffff 00 07",
			Header{Key: 18, Version: 99, CorrelationID: 1}, "\x07"},
		{"an unknown API", "7fff 0001 00000001 ffff 07",
			Header{Key: 0x7fff, Version: 1, CorrelationID: 1}, "\x07"},
		{"a negative API key", "ffff 0001 00000001 ffff 07",
			Header{Key: -1, Version: 1, CorrelationID: 1}, "\x07"},
		{"version 0, ControlledShutdown alone", "0007 0000 00000001 00000005",
			Header{Key: 7, CorrelationID: 1}, "\x00\x00\x00\x05"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, body, err := ParseHeader(unhex(t, c.frame))
			if err != nil || h != c.want || string(body) != c.body {
				t.Errorf("got %+v %x, %v", h, body, err)
			}
		})
	}
}

func TestMalformedHeaders(t *testing.T) {
	for name, frame := range map[string]string{
		"cut":                           "0003 0000 000000",
		"no client id":                  "0003 0000 00000001",
		"client id length cut":          "0003 0000 00000001 00",
		"client id cut":                 "0003 0000 00000001 0002 61",
		"client id of length -2":        "0003 0000 00000001 fffe 6161",
		"no tagged fields":              "0012 0003 00000001 ffff",
		"too many tagged fields":        "0012 0003 00000001 ffff ffffffff0f 0000",
		"a tagged field cut":            "0012 0003 00000001 ffff 01 00 05 aa",
		"a tagged field of 4 GiB":       "0012 0003 00000001 ffff 01 00 ffffffff0f aa",
		"a number of more than 32 bits": "0012 0003 00000001 ffff ffffffff1f",
		"a number that does not end":    "0012 0003 00000001 ffff ffffffffffffffffff",
	} {
		if h, body, err := ParseHeader(unhex(t, frame)); !errors.Is(err, ErrMalformed) || body != nil {
			t.Errorf("%s: %+v %x, %v", name, h, body, err)
		}
	}
}

func TestResponseHeader(t *testing.T) {
	for _, c := range []struct {
		key, version int16
		want         string
	}{
		{0, 0, "\x00\x00\x01\x02"},
		{3, 8, "\x00\x00\x01\x02"},
		{3, 9, "\x00\x00\x01\x02\x00"},
		{18, 3, "\x00\x00\x01\x02"},
		{18, 99, "\x00\x00\x01\x02"},
		{999, 99, "\x00\x00\x01\x02"},
	} {
		got := AppendResponseHeader([]byte("size"), Header{Key: c.key, Version: c.version, CorrelationID: 0x102})
		if !bytes.Equal(got, []byte("size"+c.want)) {
			t.Errorf("key %d version %d: %x", c.key, c.version, got)
		}
	}
}

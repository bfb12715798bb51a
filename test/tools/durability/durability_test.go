package main

import (
	"testing"

	"github.com/trimaran-io/trimaran/test/harness"
)

const size = 40

func TestReasonsAreFewAndPlain(t *testing.T) {
	if got := reason(harness.ErrorCode(6)); got != "NOT_LEADER_FOR_PARTITION" {
		t.Fatalf("got %q", got)
	}
}

// TestOnlyPlainMessagesOfMagic0: what a broker of 0.8 does not send to who asks with version 0 is
// an error.
func TestOnlyPlainMessagesOfMagic0(t *testing.T) {
	if _, err := parseMessages(harness.Message(nil, 3, 1, nil, []byte("v"))); err == nil {
		t.Error("a compressed message passes")
	}
	if m, err := parseMessages(harness.Message(nil, 3, 0, nil, []byte("v"))); err != nil || len(m) != 1 || m[0].Offset != 3 {
		t.Errorf("%+v, %v", m, err)
	}
}

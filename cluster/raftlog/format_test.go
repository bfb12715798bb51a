package raftlog

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// TestFormatExample holds FORMAT.md's example against what is written.
func TestFormatExample(t *testing.T) {
	page, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "<!-- example: begin -->\n")
	text, _, ok := strings.Cut(text, "<!-- example: end -->")
	if !ok {
		t.Fatal("there is no example")
	}
	s := &segment{base: 5, gen: 1, seed: 7}
	s.id.Store(9)
	b, _, err := appendFrame(s.header(), &raft.Log{Index: 5, Term: 2, Type: raft.LogCommand, Data: []byte("hi")}, s.seed, flagCallStart)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for at := 0; at < len(b); at += 16 {
		line := b[at:min(at+16, len(b))]
		fmt.Fprintf(&want, "    %06x ", at)
		for _, c := range line {
			fmt.Fprintf(&want, " %s", hex.EncodeToString([]byte{c}))
		}
		want.WriteString("\n")
	}
	if text != want.String() {
		t.Errorf("FORMAT.md has\n%s\nand what is written is\n%s", text, want.String())
	}
}

// TestFormatNumbers holds the sizes that FORMAT.md names against the code's.
func TestFormatNumbers(t *testing.T) {
	for what, got := range map[string][2]int{
		"segment header": {segmentHeader, 64}, "entry header": {frameHeader, 40}, "alignment": {frameAlign, 8},
		"index header": {indexHeader, 80}, "point": {pointSize, 32}, "manifest header": {manifestHeader, 24},
		"batch header": {batchHeader, 32}, "append's header": {recordHeader, 24}, "journal file": {defaultJournal, 64 << 20},
		"data of an entry": {maxPayload, 256 << 20}, "distance of points": {pointEvery, 16 << 10},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %d, FORMAT.md says %d", what, got[0], got[1])
		}
	}
}

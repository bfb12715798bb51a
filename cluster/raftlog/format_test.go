package raftlog

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// TestFormatExample holds FORMAT.md's examples against what is written.
func TestFormatExample(t *testing.T) {
	page, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	const secret = 0x1122334455667788
	segmentOf := func(form framing) []byte {
		s := &segment{base: 5, gen: 1, seed: 7, framing: form}
		s.id.Store(9)
		b, _, err := appendFrame(s.header(), form, segmentHeader, &raft.Log{Index: 5, Term: 2, Type: raft.LogCommand, Data: []byte("hi")}, s.seed, flagCallStart)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	batchOf := func(form batching) []byte {
		return encodeBatch(nil, form, form.start(), 3, 4, []*journalWrite{{id: 9, pos: segmentHeader, data: []byte("hi")}})
	}
	votes := votesLayout{secret: secret, end: votesHeader}
	file := encodeVotes(&votes, map[string]memberVotes{"g": {"k": []byte("v")}})
	votes.size = minVotesFile
	copy(file, votes.header())
	file = votes.appendBallot(file, appendChange(nil, "g", nil), 1)
	journal := batching{stamped: true, secret: secret}
	for i, b := range [][]byte{
		segmentOf(framing{}), segmentOf(framing{stamped: true, secret: secret}),
		append(journal.fileHeader(), batchOf(journal)...), batchOf(batching{}), file,
	} {
		_, text, _ := strings.Cut(string(page), fmt.Sprintf("<!-- example %d: begin -->\n", i+1))
		text, _, ok := strings.Cut(text, fmt.Sprintf("<!-- example %d: end -->", i+1))
		if !ok {
			t.Fatalf("there is no example %d", i+1)
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
			t.Errorf("FORMAT.md has as example %d\n%s\nand what is written is\n%s", i+1, text, want.String())
		}
	}
}

// TestFormatNumbers holds the sizes that FORMAT.md names against the code's.
func TestFormatNumbers(t *testing.T) {
	for what, got := range map[string][2]int{
		"segment header": {segmentHeader, 64}, "entry header": {frameHeader, 40}, "stamp": {stampBytes, 8}, "alignment": {frameAlign, 8},
		"index header": {indexHeader, 80}, "point": {pointSize, 32}, "manifest header": {manifestHeader, 24},
		"batch header": {batchHeader, 32}, "append's header": {recordHeader, 24}, "journal file": {defaultJournal, 64 << 20},
		"journal header": {journalHeader, 64}, "vote file's header": {votesHeader, 64}, "header of a batch of votes": {ballotHeader, 48},
		"header of a change": {changeHeader, 16}, "bytes of a batch of votes": {maxBallot, 4 << 20}, "size of a vote file": {minVotesFile, 256 << 10},
		"batch":            {maxJournalBatch, 4 << 20},
		"data of an entry": {maxPayload, 256 << 20}, "distance of points": {pointEvery, 16 << 10},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %d, FORMAT.md says %d", what, got[0], got[1])
		}
	}
}

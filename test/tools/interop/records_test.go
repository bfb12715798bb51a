package main

import "testing"

// A group has read everything when every record came, wherever in the log and however often.
func TestARecordThatIsInTheLogTwiceCountsOnce(t *testing.T) {
	written := batch("a", 5)
	read := []record{written[0], written[1], written[1]}
	read[1].offset, read[2].offset = 1, 2
	if got := distinct(read); got != 2 {
		t.Errorf("%d records of %d came, want 2", got, len(written))
	}
	if _, err := check(written, read, rules{doubled: true}); err == nil {
		t.Error("three records are missing, and nothing is said")
	}
}

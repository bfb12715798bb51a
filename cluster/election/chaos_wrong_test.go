package election_test

import (
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// The checker sees what must not be.
func TestCheckerSeesWhatIsWrong(t *testing.T) {
	for want, tell := range map[string]func(c *checker){
		"a and b lead in term 2": func(c *checker) { c.leads("g", "a", 2); c.leads("g", "b", 3); c.leads("g", "b", 2) },
		"b applies another entry 7": func(c *checker) {
			c.applied("g", "a", 7, 1, []byte("x"), sum{1})
			c.applied("g", "b", 7, 1, []byte("y"), sum{1})
		},
		"b applies another entry 8": func(c *checker) {
			c.applied("g", "a", 8, 1, []byte("x"), sum{1})
			c.applied("g", "b", 8, 2, []byte("x"), sum{1})
		},
		"the log of b up to entry 9 is not": func(c *checker) { c.applied("g", "a", 9, 1, nil, sum{1}); c.restored("g", "b", 9, sum{2}) },
		"has lost \"v\"":                    func(c *checker) { c.proposed("g", "v", acknowledged, 1); c.final("g", "a", nil) },
		"\"w\" at 0 and 1":                  func(c *checker) { c.proposed("g", "w", unknown, 0); c.final("g", "a", []string{"w", "w"}) },
		"\"r\", which was refused":          func(c *checker) { c.proposed("g", "r", refused, 0); c.final("g", "a", []string{"r"}) },
		"\"n\", which was refused or never": func(c *checker) { c.final("g", "a", []string{"n"}) },
		"out of order": func(c *checker) {
			c.proposed("g", "1", acknowledged, 1)
			c.proposed("g", "2", acknowledged, 1)
			c.final("g", "a", []string{"2", "1"})
		},
		"the log of a ends at entry 7, it acknowledged entry 9": func(c *checker) {
			c.answered("g", "a", &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 8, Entries: []*raft.Log{{}}}, &raft.AppendEntriesResponse{LastLog: 8, Success: true})
			c.answered("g", "a", &raft.AppendEntriesRequest{Term: 2, PrevLogEntry: 9}, &raft.AppendEntriesResponse{LastLog: 7})
		},
		"confirmed as the leader of term 1": func(c *checker) {
			c.proposed("g", "v", acknowledged, 2)
			c.confirmed("g", "a", 1, c.acknowledgedTerm("g"))
		},
	} {
		c := newChecker()
		tell(c)
		if err := c.err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	good := newChecker()
	good.leads("g", "a", 1)
	good.proposed("g", "1", acknowledged, 1)
	good.proposed("g", "2", unknown, 0)
	good.proposed("g", "3", acknowledged, 1)
	good.confirmed("g", "a", 1, good.acknowledgedTerm("g"))
	good.final("g", "a", []string{"1", "3"})
	good.final("g", "b", []string{"1", "2", "3"})
	if err := good.err(); err != nil {
		t.Error(err)
	}
}

package lostquorum

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/trimaran-io/trimaran/fsm"
)

// Format is that of surveys and plans; another one is refused.
const Format = 1

// maxSurvey bounds what is read of a survey, in bytes. A node with 100,000 replicas has a tenth.
const maxSurvey = 512 << 20

// Survey is what a stopped node has.
type Survey struct {
	Format    int    `json:"format"`
	Identity  string `json:"identity"` // "<node id>.<incarnation>"
	ClusterID string `json:"cluster_id"`
	// Lost are the identities that the cluster was recovered without before.
	Lost []string `json:"lost,omitempty"`

	// Nodes and Topics are what the node's catalog says, all of its log applied.
	Nodes  []fsm.Node `json:"nodes"`
	Topics []Topic    `json:"topics"`

	Catalog Log `json:"catalog"`
	// Logs are those of partitions and shards, by name of their groups, "<topic id>-<partition>".
	Logs map[string]Log `json:"logs"`
}

// Topic is a topic, or the shards of coordinators.
type Topic struct {
	Name string      `json:"name"`
	ID   fsm.TopicID `json:"id"`
	// Holders are the nodes that have a replica of each partition, or shall have one.
	Holders [][]fsm.NodeID `json:"holders"`
}

// Log is what a member of a group has.
type Log struct {
	// Problem is why a member cannot go on with it; nothing else is known then. "": it can.
	Problem string `json:"problem,omitempty"`

	Index uint64 `json:"index"` // of the last entry; 0: there is none
	Term  uint64 `json:"term"`  // of the last entry
	At    int64  `json:"at"`    // ms since 1970, by the clock of its leader; 0: not known
	Next  int64  `json:"next"`  // offset behind it
	// Committed is the last entry that is known to be committed: the snapshot's. Others may be.
	Committed uint64 `json:"committed"`

	Servers []Server `json:"servers"` // the newest configuration in it
	Voted   uint64   `json:"voted"`   // the newest term that the member knows
}

// Server is a member in a configuration.
type Server struct {
	Identity string `json:"identity"`
	Votes    bool   `json:"votes"`
}

// ReadSurvey reads a survey that another node's was written as.
func ReadSurvey(r io.Reader) (*Survey, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSurvey+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSurvey {
		return nil, fmt.Errorf("a survey of more than %d bytes", maxSurvey)
	}
	s := new(Survey)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("no survey: %w", err)
	}
	if s.Format != Format {
		return nil, fmt.Errorf("a survey of format %d, this program knows %d", s.Format, Format)
	}
	if s.Identity == "" || s.ClusterID == "" {
		return nil, errors.New("a survey of no node")
	}
	return s, nil
}

// decisive gives the survey without what changes while a node looks for others in vain: a survivor
// that was started too early comes to the same as the others all the same. Its terms count only for
// itself, and for who goes on in another log than its own they need not be known.
func (s *Survey) decisive() *Survey {
	out := *s
	out.Catalog.Voted = 0
	out.Logs = make(map[string]Log, len(s.Logs))
	for name, log := range s.Logs {
		log.Voted = 0
		out.Logs[name] = log
	}
	return &out
}

// Same reports whether two surveys of a node are of the same files, but for the terms in which it
// has voted.
func (s *Survey) Same(other *Survey) bool {
	a, aerr := json.Marshal(s.decisive())
	b, berr := json.Marshal(other.decisive())
	return aerr == nil && berr == nil && bytes.Equal(a, b)
}

// usable reports whether a member can go on with the log.
func (l Log) usable() bool { return l.Problem == "" }

// votes reports whether the member that has the log gives its vote to anybody. One that has no
// configuration may have let go of what it had, and waits for a leader (package election).
func (l Log) votes() bool { return len(l.Servers) > 0 }

// behind reports whether the log is no newer than another one (Raft, section 5.4.1).
func (l Log) behind(other Log) bool {
	return l.Term < other.Term || l.Term == other.Term && l.Index <= other.Index
}

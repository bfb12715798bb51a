package tier

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/trimaran-io/trimaran/fsm"
)

// Where things lie:
//
//	tier.json                                                       whose store this is
//	tier-after-<cluster id>.json                                    whose it is after that cluster
//	tiers/<topic id>/<partition>/<first>-<term>-<id>.index          a segment's index
//	tiers/<topic id>/<partition>/<first>-<term>-<id>.<n>.batches    its pieces, from 0
//	tiers/<topic id>/<partition>/<start>-<term>-<index>.list        a list of segments (list.go)
//
// first is the offset that the segment begins at, 20 digits; term that of the leader that put it
// there, and id a random number, 16 hexadecimal digits each.
const (
	claimKey    = "tier.json"
	segmentsDir = "tiers/"
	indexEnd    = ".index"
	pieceEnd    = ".batches"
)

// name is what names a segment within its partition.
type name struct {
	first fsm.Offset
	term  fsm.Term
	id    uint64
}

func nameOf(s fsm.TieredSegment) name { return name{s.First, s.Term, s.ID} }

func (n name) String() string { return fmt.Sprintf("%020d-%016x-%016x", n.first, uint64(n.term), n.id) }

func topicDir(id fsm.TopicID) string { return segmentsDir + id.String() + "/" }

func partitionDir(id fsm.PartitionID) string {
	return topicDir(id.Topic) + strconv.Itoa(int(id.Partition)) + "/"
}

func indexKey(id fsm.PartitionID, n name) string { return partitionDir(id) + n.String() + indexEnd }

func pieceKey(id fsm.PartitionID, n name, piece int) string {
	return fmt.Sprintf("%s%s.%05d%s", partitionDir(id), n, piece, pieceEnd)
}

// parseName reads what stands behind a partition's folder in a key; ok is false for what no program
// put there.
func parseName(text string) (n name, ok bool) {
	text, ok = strings.CutSuffix(text, indexEnd)
	if !ok {
		if text, ok = strings.CutSuffix(text, pieceEnd); !ok {
			return n, false
		}
		var piece string
		if text, piece, ok = strings.Cut(text, "."); !ok || len(piece) < 5 || strings.Trim(piece, "0123456789") != "" {
			return n, false
		}
	}
	parts := strings.Split(text, "-")
	if len(parts) != 3 || len(parts[0]) != 20 || len(parts[1]) != 16 || len(parts[2]) != 16 {
		return n, false
	}
	first, err1 := strconv.ParseInt(parts[0], 10, 64)
	term, err2 := strconv.ParseUint(parts[1], 16, 64)
	id, err3 := strconv.ParseUint(parts[2], 16, 64)
	n = name{fsm.Offset(first), fsm.Term(term), id}
	return n, err1 == nil && err2 == nil && err3 == nil && n.String() == text
}

// topicOf gives the topic that a key belongs to; ok is false for what no program put there.
func topicOf(key string) (id fsm.TopicID, ok bool) {
	rest, ok := strings.CutPrefix(key, segmentsDir)
	if !ok {
		return id, false
	}
	text, _, ok := strings.Cut(rest, "/")
	if !ok || len(text) != 2*len(id) {
		return id, false
	}
	if _, err := hex.Decode(id[:], []byte(text)); err != nil || id.String() != text {
		return fsm.TopicID{}, false
	}
	return id, true
}

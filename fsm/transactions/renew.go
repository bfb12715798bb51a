package transactions

import "math"

// usedUp is an epoch that is never given out, nor any behind it: whoever has a transactional id
// next gets another producer id.
const usedUp = math.MaxInt16

// Renew gives commands, of at most size bytes or one record each, after which every id that is here
// is given another producer id before its next transaction. It is for a shard that may have lost
// what was behind this state, while partitions have not: they take no marker of a number that they
// have had (fsm.Marker), nor a batch that they have had, so neither a number nor an epoch may be
// given a second time. What is ongoing is aborted, since what was added to it may be lost; what is
// decided stays decided. All who have one of the producer ids are fenced. The same state gives the
// same commands, and one that is renewed none.
func (s *State) Renew(size int) (commands [][]byte) {
	var all []Changes
	revision := s.revision
	for _, id := range s.IDs() {
		t := s.ids[id]
		p := t.producer
		switch p.Phase {
		case Ongoing:
			p.Phase = PrepareAbort
		case CompleteCommit, CompleteAbort:
			p.Phase = Empty
		}
		p.Previous, p.Next, p.Epoch, p.LastEpoch = p.ProducerID, -1, usedUp, -1
		if p == t.producer {
			continue
		}
		revision++
		var c Changes
		c.Set(id, t.revision, revision, p)
		last := len(all) - 1
		if last < 0 || all[last].Size()+c.Size() > size {
			all, last = append(all, Changes{}), last+1
		}
		all[last].Set(id, t.revision, revision, p)
	}
	for _, c := range all {
		commands = append(commands, Encode(c))
	}
	return commands
}

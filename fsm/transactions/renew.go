package transactions

import "math"

const (
	// UsedUp is an epoch that is never given out, nor any behind it: whoever has a transactional id
	// next gets another producer id.
	UsedUp = math.MaxInt16
	// Renews is a LastEpoch, and an epoch that nobody has: once the transaction that is decided is
	// over the epoch is UsedUp. Until then its markers must be those that they were: partitions
	// tell by them whether the next one has begun.
	Renews = -2
)

// Renewed reports whether the epoch is UsedUp since the id was renewed, so nobody had the one
// before it last, and nobody may be told it.
func (p Producer) Renewed() bool { return p.Epoch == UsedUp && p.Next == -1 }

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
		if p.Phase.Preparing() {
			p.LastEpoch = Renews
		} else {
			if p.Phase == Ongoing {
				p.Phase = PrepareAbort
			} else {
				p.Phase = Empty
			}
			p.Previous, p.Next, p.Epoch, p.LastEpoch = p.ProducerID, -1, UsedUp, -1
		}
		if p == t.producer || t.producer.Phase == PrepareAbort && t.producer.Epoch == UsedUp {
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

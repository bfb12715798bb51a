package groups

import (
	"cmp"
	"slices"
)

// Offsets that are committed in a transaction are pending until its marker. A group's are kept by
// producer id, beside what is committed: nobody but who asks for stable offsets sees them.
//
// Of each producer its last marker stays for a while, since a marker may come twice, the second
// time when the producer has the next transaction open here. Each number is taken once
// (fsm.Marker). For how long, and of how many producers, is the coordinator's affair: those who
// have nothing pending are in a list, in the order in which they ended.

// transactional is what producers have pending in a group, and their last markers. One of no
// producers is not kept.
type transactional struct {
	producers map[int64]*producer
	// open are those of producers that have offsets pending; nil: none has.
	open map[int64]*producer
}

// producer is what is kept of one.
type producer struct {
	group string
	id    int64

	epoch  int16 // the largest that was seen
	ended  bool  // a marker was seen, and these are of the last one
	listed bool  // in State.idle: exactly if ended and nothing is pending
	number int32
	at     int64 // ms: when the marker was decided here

	topics map[string]*pendingTopic // empty: no transaction is open here

	older, newer *producer // in State.idle
}

// idle is a list of producers who have ended a transaction and have nothing pending. It is not part
// of what replicas agree on: where one began from a snapshot, the order is that of the times.
type idle struct {
	oldest, newest *producer
	n              int
}

func (l *idle) push(p *producer) {
	if l.newest == nil {
		l.oldest = p
	} else {
		l.newest.newer = p
	}
	p.listed, p.older, p.newer, l.newest = true, l.newest, nil, p
	l.n++
}

// remove takes p out of the list, if it is in it.
func (l *idle) remove(p *producer) {
	if !p.listed {
		return
	}
	if p.older == nil {
		l.oldest = p.newer
	} else {
		p.older.newer = p.newer
	}
	if p.newer == nil {
		l.newest = p.older
	} else {
		p.newer.older = p.older
	}
	p.listed, p.older, p.newer = false, nil, nil
	l.n--
}

// sort brings the list into the order of the times.
func (l *idle) sort() {
	all := make([]*producer, 0, l.n)
	for p := l.oldest; p != nil; p = p.newer {
		all = append(all, p)
	}
	slices.SortStableFunc(all, func(a, b *producer) int { return cmp.Compare(a.at, b.at) })
	*l = idle{}
	for _, p := range all {
		l.push(p)
	}
}

// pendingTopic belongs to one incarnation of a topic, and has at least one partition.
type pendingTopic struct {
	id         [16]byte
	partitions map[int32]pendingOffset
}

type pendingOffset struct {
	Offset
	// overtaken: an offset was committed without a transaction after this one, and stays.
	overtaken bool
}

// Ended is the last marker of a producer.
type Ended struct {
	Known  bool // there was one; the rest is 0 if not
	Number int32
}

// Producer is what a group knows of a transactional producer.
type Producer struct {
	Known bool  // there is something; the rest is 0 if not
	Epoch int16 // the largest that was seen
	Last  Ended
	Open  bool // it has offsets pending, of Epoch
}

// About what they cost in memory, as costGroup and the others.
const (
	costTransactional = 320
	costProducer      = 128
)

func (s *State) transactions(group string) *transactional {
	t := s.pending[group]
	if t == nil {
		t = &transactional{producers: make(map[int64]*producer)}
		s.pending[group] = t
		s.bytes += costTransactional + len(group)
	}
	return t
}

// close notes that a producer has nothing pending any more.
func (t *transactional) close(id int64) {
	if delete(t.open, id); len(t.open) == 0 {
		t.open = nil
	}
}

func (s *State) producer(group string, id int64) *producer {
	t := s.transactions(group)
	p := t.producers[id]
	if p == nil {
		p = &producer{group: group, id: id}
		t.producers[id] = p
		s.bytes += costProducer
	}
	return p
}

// setPending notes an offset of a transaction. Those of a smaller epoch are of a transaction that
// is over. What others have pending for another incarnation of the topic is gone, as what is
// committed for one is: else it would take the place of what is committed for this one.
func (s *State) setPending(group string, id int64, epoch int16, topic string, topicID [16]byte, partition int32, o pendingOffset) {
	p := s.producer(group, id)
	if epoch < p.epoch {
		return
	}
	if epoch > p.epoch {
		s.dropPending(p)
		p.epoch = epoch
	}
	s.idle.remove(p)
	on := p.topics[topic]
	if on != nil && on.id != topicID {
		s.dropPendingTopic(p, topic)
		on = nil
	}
	if on == nil {
		s.dropOthers(group, id, topic, topicID)
		if p.topics == nil {
			p.topics = make(map[string]*pendingTopic)
		}
		on = &pendingTopic{id: topicID, partitions: make(map[int32]pendingOffset)}
		p.topics[topic] = on
		s.bytes += costTopic + len(topic)
	}
	if old, ok := on.partitions[partition]; ok {
		s.bytes -= costOffset + len(old.Metadata)
	}
	on.partitions[partition] = o
	s.bytes += costOffset + len(o.Metadata)
	t := s.pending[group]
	if t.open == nil {
		t.open = make(map[int64]*producer)
	}
	t.open[id] = p
}

// end ends a producer's transaction in the group, unless the marker came before.
func (s *State) end(group string, id int64, epoch int16, last Ended, commit bool, at int64) {
	p := s.producer(group, id)
	if p.ended && last.Number-p.number <= 0 {
		return
	}
	if commit {
		for topic, on := range p.topics {
			for partition, o := range on.partitions {
				if !o.overtaken {
					s.setOffset(group, topic, on.id, partition, o.Offset)
				}
			}
		}
	}
	s.dropPending(p)
	s.pending[group].close(id)
	p.topics = nil
	p.epoch, p.ended, p.number, p.at = max(p.epoch, epoch), true, last.Number, at
	s.idle.remove(p)
	s.idle.push(p)
}

// forgetProducer lets go of a producer whose last marker is of that time, and who has nothing
// pending.
func (s *State) forgetProducer(group string, id, at int64) {
	t := s.pending[group]
	if t == nil {
		return
	}
	if p := t.producers[id]; p != nil && len(p.topics) == 0 && p.at == at {
		s.idle.remove(p)
		delete(t.producers, id)
		s.bytes -= costProducer
		s.tidyTransactions(group, t)
	}
}

func (s *State) tidyTransactions(group string, t *transactional) {
	if len(t.producers) == 0 {
		delete(s.pending, group)
		s.bytes -= costTransactional + len(group)
	}
}

func (s *State) dropPending(p *producer) {
	for topic := range p.topics {
		s.dropPendingTopic(p, topic)
	}
}

func (s *State) dropPendingTopic(p *producer, topic string) {
	for _, o := range p.topics[topic].partitions {
		s.bytes -= costOffset + len(o.Metadata)
	}
	delete(p.topics, topic)
	s.bytes -= costTopic + len(topic)
}

// deletePending lets go of what is pending for a partition, or in the whole group if topic is nil.
func (s *State) deletePending(group string, topic *string, partition int32) {
	t := s.pending[group]
	if t == nil {
		return
	}
	for id, p := range t.open {
		if topic == nil {
			s.dropPending(p)
		} else if on := p.topics[*topic]; on != nil {
			if o, ok := on.partitions[partition]; ok {
				delete(on.partitions, partition)
				s.bytes -= costOffset + len(o.Metadata)
			}
			if len(on.partitions) == 0 {
				s.dropPendingTopic(p, *topic)
			}
		}
		s.closeIfEmpty(group, t, id, p)
	}
}

// closeIfEmpty notes that nothing is pending any more. Who never ended a transaction here is
// forgotten then.
func (s *State) closeIfEmpty(group string, t *transactional, id int64, p *producer) {
	if len(p.topics) > 0 {
		return
	}
	t.close(id)
	p.topics = nil
	if p.ended {
		s.idle.push(p)
		return
	}
	delete(t.producers, id)
	s.bytes -= costProducer
	s.tidyTransactions(group, t)
}

// overtake notes that an offset is committed now, without a transaction, which is to stay whatever
// becomes of those pending.
func (s *State) overtake(group, topic string, topicID [16]byte, partition int32) {
	t := s.pending[group]
	if t == nil {
		return
	}
	s.dropOthers(group, -1, topic, topicID)
	for _, p := range t.open {
		if on := p.topics[topic]; on != nil {
			if o, ok := on.partitions[partition]; ok {
				o.overtaken = true
				on.partitions[partition] = o
			}
		}
	}
}

// dropOthers lets go of what is pending for other incarnations of a topic, but of one producer.
func (s *State) dropOthers(group string, but int64, topic string, topicID [16]byte) {
	t := s.pending[group]
	for id, p := range t.open {
		if on := p.topics[topic]; id != but && on != nil && on.id != topicID {
			s.dropPendingTopic(p, topic)
			s.closeIfEmpty(group, t, id, p)
		}
	}
}

// hasOpen reports whether some transaction has offsets pending in the group.
func (s *State) hasOpen(group string) bool {
	t := s.pending[group]
	return t != nil && len(t.open) > 0
}

// The reading half.

// Pending reports whether a transaction has an offset pending for a partition of that incarnation
// of the topic.
func (s *State) Pending(group, topic string, id [16]byte, partition int32) bool {
	t := s.pending[group]
	if t == nil {
		return false
	}
	for _, p := range t.open {
		if on := p.topics[topic]; on != nil && on.id == id {
			if _, ok := on.partitions[partition]; ok {
				return true
			}
		}
	}
	return false
}

// Producer gives what the group knows of a transactional producer.
func (s *State) Producer(group string, id int64) Producer {
	if t := s.pending[group]; t != nil {
		if p := t.producers[id]; p != nil {
			return Producer{Known: true, Epoch: p.epoch, Last: Ended{p.ended, p.number}, Open: len(p.topics) > 0}
		}
	}
	return Producer{}
}

// IdleProducer is one that has ended a transaction in a group and has nothing pending there.
type IdleProducer struct {
	Group string
	ID    int64
	At    int64 // ms: when it ended the last one
}

// Idle gives those producers, the one that ended longest ago first.
func (s *State) Idle(yield func(p IdleProducer) bool) {
	for p := s.idle.oldest; p != nil; p = p.newer {
		if !yield(IdleProducer{p.group, p.id, p.at}) {
			return
		}
	}
}

// IdleLen is how many Idle gives.
func (s *State) IdleLen() int { return s.idle.n }

package main

import "github.com/trimaran-io/trimaran/test/harness/mutant"

const (
	aheadGo      = "fsm/producersahead.go"
	markGo       = "fsm/transactions.go"
	endGo        = "transaction/end.go"
	finishGo     = "transaction/finish.go"
	admitGo      = "cluster/replica/transactions.go"
	groupsGo     = "fsm/groups/state.go"
	firstOnly    = 1
	secondOnly   = 2
	everyone     = 0
	markersGo    = "transaction/markers.go"
	nextGo       = "transaction/next.go"
	writesMarker = "	begun, err = m.c.cfg.WriteMarker(ctx, to.partition, mark)\n"
	slowAnswers  = "		a.Refused, cut = p.join(ctx, joining{txn, h.ProducerID, h.ProducerEpoch, a.Guard})\n"
)

// slow has a leader be late with what a transaction's coordinator answered, so that it meets the
// end of the transaction more often. It is no mistake, and nothing comes of it by itself.
var slow = []mutant.Change{{File: admitGo, Old: slowAnswers,
	New: slowAnswers + "		time.Sleep(time.Duration(time.Now().UnixNano()%40) * time.Millisecond)\n"}}

// twice has markers come a second time, when the next transaction has begun, as from a coordinator
// that was cut off. It is no mistake either.
var twice = []mutant.Change{{File: markersGo, Old: writesMarker,
	New: "	time.AfterFunc(time.Duration(time.Now().UnixNano()%300)*time.Millisecond, func() {\n" +
		"		_, _ = m.c.cfg.WriteMarker(context.WithoutCancel(ctx), to.partition, mark)\n	})\n" + writesMarker}}

// mutants are the defences of transactions, each taken away.
var mutants = []broken{
	{name: "none", what: "nothing, but leaders are slow and markers come twice", changes: append(twice, slow...), harmless: true},
	{name: "pending", what: "offsets of a transaction are seen before it ends", changes: []mutant.Change{
		{File: groupsGo, Old: "		s.setPending(c.group, c.producer, c.epoch, c.topic, c.id, c.partition, pendingOffset{Offset: c.offset})\n",
			New: "		s.setOffset(c.group, c.topic, c.id, c.partition, c.offset)\n"},
	}},
	{name: "markers", what: "a transaction is complete before its markers are written", changes: []mutant.Change{
		{File: finishGo, Old: "	c.markers.write(mark, scope, func(begun []fsm.PartitionID) {\n		if mark.Commit {\n			c.hasEnded()\n		}\n		l.arrived(mark, begun)\n	})\n",
			New: "	c.markers.write(mark, scope, func([]fsm.PartitionID) {})\n	if mark.Commit {\n		c.hasEnded()\n	}\n	l.arrived(mark, nil)\n"},
	}},
	// In version 2 the marker has another epoch than the batch.
	{name: "guard", what: "a batch may begin a transaction behind its marker", changes: append([]mutant.Change{
		{File: aheadGo, Old: "return a.guards[g.producer] == g }", New: "return g != nil }"},
		{File: aheadGo, Old: "	case !a.Holds(guard), s.Ended != guard.ended:\n", New: "	case !a.Holds(guard):\n"},
	}, slow...), version: firstOnly},
	{name: "verify", what: "leaders do not ask the coordinator", changes: []mutant.Change{
		{File: admitGo, Old: "	j.err = refusal(p.replica.env.Host.JoinTransaction(ctx, q.txn, q.producer, q.epoch, p.replica.ID, ended))\n",
			New: "	if q.txn.Add {\n		j.err = refusal(p.replica.env.Host.JoinTransaction(ctx, q.txn, q.producer, q.epoch, p.replica.ID, ended))\n	}\n"},
	}, version: firstOnly},
	{name: "epoch", what: "transactions of version 2 have no epoch of their own", changes: []mutant.Change{
		{File: endGo, Old: "		s := bump(v, prepared(commit))\n",
			New: "		s := bump(v, prepared(commit))\n		if s.set != nil && s.set.Next == -1 {\n			s.set.Epoch--\n			s.told.epoch--\n		}\n"},
	}, version: secondOnly},
	{name: "order", what: "the next transaction may begin in front of the marker of the one before", changes: []mutant.Change{
		{File: nextGo, Old: "ended != p.Number || ", New: ""},
		{File: markersGo, Old: writesMarker, New: "	time.Sleep(time.Duration(time.Now().UnixNano()%40) * time.Millisecond)\n" + writesMarker},
	}, version: secondOnly},
	{name: "begun", what: "a coordinator does not ask where the next transaction has begun", changes: []mutant.Change{
		{File: nextGo, Old: "	for _, p := range begun {\n		n.join(p, now)\n	}\n", New: ""},
	}, version: secondOnly},
	{name: "former", what: "a marker of a former transaction ends the next one", changes: append([]mutant.Change{
		{File: aheadGo, Old: "	case s.Ended != 0 && !m.Follows(s.Ended):\n", New: "	case false:\n"},
		{File: markGo, Old: "	if p.Ended != 0 && m.Number != p.Ended && !m.Follows(p.Ended) {\n", New: "	if false {\n"},
	}, twice...)},
	{name: "stable", what: "readers of committed records do not wait for open transactions", changes: []mutant.Change{
		{File: markGo, Old: "	if n := p.producers.open.oldest; n != nil {\n		return max(p.logStart, n.state.First)\n	}\n	return p.next\n",
			New: "	return p.next\n"},
	}},
}

package gateway

// This file is a fetch whose caller's rights change while it waits: what it was found to have a
// right to is judged anew before it is answered, and it is answered at once when a right is gone.

// rightsChanged gives a channel that is closed when they may have changed, nil where they cannot.
// What changed before it was given is found by judge.
func (f *fetch) rightsChanged() <-chan struct{} {
	s := f.conn.server
	if f.caller.everything() {
		return nil
	}
	changed := s.catalog.CatalogChanged()
	if s.catalog.Topics().Security() != f.judged {
		return closedChannel
	}
	return changed
}

var closedChannel = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// judge takes what was read from partitions that the caller has no right to any more, and says
// whether there is any.
func (f *fetch) judge() (denied bool) {
	s := f.conn.server
	now := s.catalog.Topics().Security()
	if f.caller.everything() || now == f.judged {
		return false
	}
	f.judged = now
	may := map[string]bool{}
	for _, p := range f.parts {
		allowed, asked := may[p.topic]
		if !asked {
			allowed = f.mayTopic(p.topic)
			may[p.topic] = allowed
		}
		if allowed {
			continue
		}
		denied = true
		p.answer(f.fail(errTopicDenied), -1, -1, -1)
		p.err, p.next = errTopicDenied, -1
		p.out.RecordBatches, p.out.AbortedTransactions = []byte{}, p.out.AbortedTransactions[:0]
	}
	return denied
}

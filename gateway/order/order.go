package order

import (
	"slices"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// What a request of a connection sees of those that were read before it. A broker of Kafka's
// finishes a request before it reads the connection's next one; here requests overlap, and what can
// be told from outside must be the same: what changes something is seen by what comes behind it.

// Effect is what a request does to what others see.
type Effect int8

const (
	// Looks: it shows what is there, and so waits for the produces before it.
	Looks Effect = iota
	// Appends: it puts records into partitions. Produces overlap; their queues keep their order.
	Appends
	// Changes: topics, configurations, or what a partition still has. It waits for all before
	// it, and nothing behind it begins before it is answered.
	Changes
	// Transacts: it widens a transaction, or ends it. It waits for the produces before it, and
	// nothing behind it begins before it is answered.
	Transacts
	// InTurn: it is about consumer groups, whose turns keep the order. See Turns.
	InTurn
	// Blind: it depends on nothing that a connection's requests do.
	Blind
)

// Order is what a connection's reader remembers of requests that are not answered yet.
// Only the reader uses it.
type Order struct {
	// closed when the last change that was read is answered; nil: none was
	change   <-chan struct{}
	produces []<-chan struct{} // of the produces behind that
	looks    []<-chan struct{} // of those that look, behind that
}

// Admit waits until what a request has to see is there, as far as the reader has to, and puts it
// behind the others. done is closed when it is answered. What it still has to wait for before it
// looks is given: answers are sent in order, so waiting there holds up nobody.
func (o *Order) Admit(done <-chan struct{}, what Effect) (before []<-chan struct{}) {
	if o.change != nil {
		locks.MayWait("the request before")
		<-o.change
		o.change = nil
	}
	o.produces, o.looks = unanswered(o.produces), unanswered(o.looks)
	switch what {
	case Appends:
		o.produces = append(o.produces, done)
	case Looks:
		before = slices.Clone(o.produces)
		o.looks = append(o.looks, done)
	case Transacts:
		before = o.produces
		o.change, o.produces = done, nil
	case Changes:
		before = slices.Concat(o.produces, o.looks)
		o.change, o.produces, o.looks = done, nil, nil
	}
	return before
}

// unanswered leaves out the answers that are there.
func unanswered(list []<-chan struct{}) []<-chan struct{} {
	return slices.DeleteFunc(list, func(done <-chan struct{}) bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
}

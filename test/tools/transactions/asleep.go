package main

import (
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// franz-go 1.22 has a producer that falls asleep: it holds records, and neither sends nor fails
// them, for ever (its sink.go, undoStagedBatches; 1.22.3 has it, too). No answer of a broker's is
// needed for that, only a connection that ends:
//
//  1. A Produce request is on its way with the first batch of partition 0.
//  2. The next request is put together: the second batch of partition 0, and the first of partition
//     1, which is new in the transaction. So AddPartitionsToTxn goes out first.
//  3. The connections end. The batch of 1 is to be sent again: partition 0 is rewound to it.
//  4. AddPartitionsToTxn is tried again and nobody listens. The request of 2 is taken back, which
//     sets partition 0 to its second batch, and so undoes 3.
//  5. Now somebody listens. The second batch goes out, and whatever is answered is left out of
//     account, since it is not the first. Nothing is on its way then and nothing is to be sent, and
//     both batches are there.
//
// Clients of version 2 of the protocol do not send AddPartitionsToTxn.
//
// The checker has no other client, so it looks for that state: a promise is not kept, and the
// client asks nothing of anybody. Such a client is replaced, and counted. One that asks and gets
// nowhere is an anomaly.

const (
	// silence is after how long without a request a producer sleeps. A request that nobody answers
	// is given up and sent again after 20 s.
	silence = 30 * time.Second
	// patience is how long it may take until a record is written or refused.
	patience = 2 * time.Minute
)

var (
	errAsleep = errors.New("the client fell asleep with records to send")
	errUnkept = errors.New("a record was neither written nor refused")
)

// asking is when a client last asked a broker for what a producer needs. It is a kgo.Hook.
type asking struct{ last atomic.Int64 } // ns since 1970; 0: never

func (a *asking) OnBrokerConnect(kgo.BrokerMetadata, time.Duration, net.Conn, error) {
	a.last.Store(time.Now().UnixNano())
}

func (a *asking) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	a.note(key)
}

func (a *asking) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	a.note(key)
}

func (a *asking) note(key int16) {
	switch kmsg.Key(key) {
	case kmsg.Produce, kmsg.AddPartitionsToTxn, kmsg.InitProducerID, kmsg.FindCoordinator, kmsg.Metadata:
		a.last.Store(time.Now().UnixNano())
	}
}

// kept waits until count promises are kept. refused is the first error among them. If err is not
// nil some are not, and the client is not to be used any more.
func (w *world) kept(id string, a *asking, promises <-chan error, count int) (refused, err error) {
	began := time.Now()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for count > 0 {
		select {
		case err := <-promises:
			count--
			if refused == nil {
				refused = err
			}
		case now := <-look.C:
			heard := time.Unix(0, max(a.last.Load(), began.UnixNano()))
			switch {
			case now.Sub(heard) > silence:
				w.asleep.Add(1)
				return refused, errAsleep
			case now.Sub(began) > patience:
				w.h.anomaly("unkept", "%s asks for %v, and %d of its records are neither written nor refused", id, patience, count)
				return refused, errUnkept
			}
		}
	}
	return refused, nil
}

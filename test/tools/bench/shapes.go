package main

import "time"

// shape is a load as all systems get it.
type shape struct {
	name, what string
	topic      string // shapes with the same topic share it
	partitions int
	size       int // bytes of a batch, in whole records of 1 KB
	franz      bool
	conns      int
	inFlight   int     // of each connection
	perSecond  float64 // 0: as fast as it goes
	consume    bool
	notNATS    bool // another client of Kafka's protocol does the same there
}

// by names the load and its client on a system.
func (s shape) by(on system) string {
	switch {
	case on.nats:
		return s.what + ", nats.go"
	case s.franz:
		return s.what + ", franz-go"
	}
	return s.what + ", raw"
}

// perRequest is how many records a batch has.
func (s shape) perRequest() int { return batch(s.size, false).records }

const (
	small1 = 1 << 10
	batch1 = 16 << 10
	batchM = 1_000_000 // what franz-go sends at most unless told otherwise
)

// shapes are in the order in which topics are made: what has few partitions comes first, so that
// nothing is idle beside it. raw is a client that sends finished batches and reads answers, as a
// producer at its cheapest; franz-go is as it comes, but for the size of its batches.
var shapes = []shape{
	{name: "one-200", what: "1 KB one at a time, 200/s", topic: "small", partitions: 1, size: small1, conns: 1, inFlight: 1, perSecond: 200},
	{name: "one-500", what: "1 KB one at a time, 500/s", topic: "small", partitions: 1, size: small1, conns: 1, inFlight: 1, perSecond: 500},
	{name: "one-1000", what: "1 KB one at a time, 1000/s", topic: "small", partitions: 1, size: small1, conns: 1, inFlight: 1, perSecond: 1000},
	{name: "one-raw", what: "1 KB one at a time, no pause", topic: "small", partitions: 1, size: small1, conns: 1, inFlight: 1},
	{name: "one-franz", what: "1 KB one at a time, no pause", topic: "small", partitions: 1, size: small1, conns: 1, inFlight: 1, franz: true, notNATS: true},
	{name: "one-500-franz", what: "1 KB one at a time, 500/s", topic: "small", partitions: 1, size: small1, conns: 1, inFlight: 1, perSecond: 500, franz: true, notNATS: true},
	{name: "16k-franz-5", what: "16 KB, 5 in flight", topic: "one", partitions: 1, size: batch1, conns: 1, inFlight: 5, franz: true, notNATS: true},
	{name: "16k-raw-5", what: "16 KB, 5 in flight", topic: "one", partitions: 1, size: batch1, conns: 1, inFlight: 5},
	{name: "16k-raw-64", what: "16 KB, 64 in flight", topic: "one", partitions: 1, size: batch1, conns: 1, inFlight: 64},
	{name: "16k-raw-2x64", what: "16 KB, 2 x 64 in flight", topic: "one", partitions: 1, size: batch1, conns: 2, inFlight: 64},
	{name: "consume-1", what: "consume them", topic: "one", partitions: 1, size: batch1, franz: true, consume: true},
	{name: "1m-5", what: "1 MB, 5 in flight", topic: "large", partitions: 1, size: batchM, conns: 1, inFlight: 5, franz: true},
	{name: "16k-16-franz", what: "16 partitions, 16 KB", topic: "sixteen", partitions: 16, size: batch1, conns: 1, inFlight: 5, franz: true, notNATS: true},
	{name: "16k-16-raw", what: "16 partitions, 16 KB, 2 x 64", topic: "sixteen", partitions: 16, size: batch1, conns: 2, inFlight: 64},
	{name: "16k-100-franz", what: "100 partitions, 16 KB", topic: "hundred", partitions: 100, size: batch1, conns: 1, inFlight: 5, franz: true, notNATS: true},
	{name: "16k-100-raw", what: "100 partitions, 16 KB, 2 x 64", topic: "hundred", partitions: 100, size: batch1, conns: 2, inFlight: 64},
	{name: "consume-100", what: "consume them", topic: "hundred", partitions: 100, size: batch1, franz: true, consume: true},
	{name: "1k-100-raw", what: "100 partitions, 1 KB, 10 x 100", topic: "small100", partitions: 100, size: small1, conns: 10, inFlight: 100},
	{name: "1k-100-franz", what: "100 partitions, 1 KB", topic: "small100", partitions: 100, size: small1, conns: 1, inFlight: 5, franz: true, notNATS: true},
}

// driver is a client with its connections. run may be called again.
type driver interface {
	run(window time.Duration) (result, error)
	close()
}

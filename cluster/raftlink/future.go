package raftlink

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/internal/locks"
)

// appendFuture implements raft.AppendFuture. The pipeline's lock guards left; finish is called
// once.
type appendFuture struct {
	start    time.Time
	args     *raft.AppendEntriesRequest
	resp     *raft.AppendEntriesResponse
	left     int       // answers to come
	own      bool      // of the pipeline, not of Raft: not delivered
	ahead    bool      // sent before Raft asked; its own until Raft does
	commit   uint64    // what it said is committed
	at       time.Time // when it was answered; zero: it was not
	instance uint64    // of the follower's raft group when this was sent, 0 if unknown
	timer    *time.Timer
	err      error  // valid once answered is closed
	release  func() // gives back what holdAppend took; nil: nothing
	answered chan struct{}
}

func (f *appendFuture) finish(err error) {
	if f.timer != nil {
		f.timer.Stop()
	}
	if f.release != nil {
		f.release()
	}
	f.err = err
	close(f.answered)
}

// Error waits for the answer.
func (f *appendFuture) Error() error {
	locks.MayWait("an answer to AppendEntries")
	<-f.answered
	return f.err
}

func (f *appendFuture) Start() time.Time                      { return f.start }
func (f *appendFuture) Request() *raft.AppendEntriesRequest   { return f.args }
func (f *appendFuture) Response() *raft.AppendEntriesResponse { return f.resp }

var errSwallowed = errors.New("peer: said already")

// swallowed is the future of a request that was not sent. It is not delivered to Consumer, where
// it would count as contact with the follower.
func swallowed(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) *appendFuture {
	f := &appendFuture{start: time.Now(), args: args, resp: resp, answered: make(chan struct{})}
	f.finish(errSwallowed)
	return f
}

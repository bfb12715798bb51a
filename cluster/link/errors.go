package link

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrNotSent means that the request surely never reached the handler of the
	// other node, so trying again, there or elsewhere, cannot do it twice. Any
	// error of Call that is not ErrNotSent means unknown fate.
	ErrNotSent = errors.New("not sent")
	// ErrClusterMismatch: the two nodes belong to different clusters.
	ErrClusterMismatch = errors.New("the other node belongs to a different cluster")
	// ErrIdentityMismatch: another identity than the one dialed lives at that address.
	ErrIdentityMismatch = errors.New("another node answers at that address")
	// ErrVersionMismatch: the two nodes have no version of this protocol in common.
	ErrVersionMismatch = errors.New("no common version of the peer protocol")
	// ErrClosed: this link, what took the request or the other node's is closed.
	ErrClosed = errors.New("peer link closed")
	// ErrStopping: the other node is about to stop and takes no more requests.
	ErrStopping = errors.New("the other node is stopping")
	// ErrNoMember: the other node has nobody of that name who takes requests (yet, or any more).
	ErrNoMember = errors.New("no such group on the other node")
	// ErrBusy: a bound of the other node was reached: handlers, or the queue of what the request is
	// for.
	ErrBusy = errors.New("the other node is busy")
	// ErrTooLarge: the message is larger than Config.MaxMessageBytes.
	ErrTooLarge = errors.New("message too large")
	// ErrUnknownPeer: Config.Resolve knows no address for that identity.
	ErrUnknownPeer = errors.New("no address known")
	// ErrTimeout: no answer in time.
	ErrTimeout = errors.New("timed out")
	// ErrBroken: the session broke while the answer was awaited.
	ErrBroken = errors.New("connection lost")
	// ErrRemote: the request was worked on and failed there.
	ErrRemote = errors.New("the other node failed")
	// ErrProtocol: the other side sent what no program of ours sends. It ends the session.
	ErrProtocol = errors.New("peer protocol violated")

	errStale      = errors.New("a newer session of this node exists")
	errStreamOver = errors.New("snapshot stream is over")
)

// ClusterMismatch is ErrClusterMismatch with the id of the other node's cluster.
type ClusterMismatch struct {
	Theirs string // as it says itself
	// Proven: it has shown that it may have its identity (Secured). Else anybody may have said so.
	Proven bool
	err    error
}

func (e *ClusterMismatch) Error() string { return e.err.Error() }
func (e *ClusterMismatch) Unwrap() error { return e.err }

// NotSent marks err as surely not processed.
func NotSent(err error) error { return notSent(err) }

// notSent is NotSent.
func notSent(err error) error {
	if errors.Is(err, ErrNotSent) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNotSent, err)
}

// Reasons of a refusal, as they go over the wire: in the hello's answer and in
// the first byte of a refused answer. Numbers are for ever.
const (
	reasonNone     uint8 = 0
	reasonCluster  uint8 = 1
	reasonIdentity uint8 = 2
	reasonVersion  uint8 = 3
	reasonStopping uint8 = 4
	reasonNoMember uint8 = 5
	reasonBusy     uint8 = 6
	reasonStale    uint8 = 7
	reasonUnproven uint8 = 8
	reasonOther    uint8 = 255
)

var reasons = map[uint8]error{
	reasonCluster:  ErrClusterMismatch,
	reasonIdentity: ErrIdentityMismatch,
	reasonVersion:  ErrVersionMismatch,
	reasonStopping: ErrStopping,
	reasonNoMember: ErrNoMember,
	reasonBusy:     ErrBusy,
	reasonStale:    errStale,
	reasonUnproven: ErrUnproven,
}

func reasonOf(err error) uint8 {
	for code, e := range reasons {
		if errors.Is(err, e) {
			return code
		}
	}
	return reasonOther
}

// refusal turns what came over the wire into an error; text is shown quoted,
// since it is the other side's.
func refusal(code uint8, text []byte) error {
	const most = 512
	if len(text) > most {
		text = text[:most]
	}
	base, ok := reasons[code]
	if !ok {
		return fmt.Errorf("refused: %q", text)
	}
	detail := strings.TrimPrefix(strings.TrimPrefix(string(text), base.Error()), ": ")
	if detail == "" {
		return base
	}
	return fmt.Errorf("%w (it says %q)", base, detail)
}

// Package peer joins the link between nodes, Raft's transport over it and the rules of elections under
// their old names.
//
// You are here: between package cluster and cluster/link, cluster/raftlink and cluster/election, until
// package cluster names these itself.
package peer

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"
	"github.com/trimaran-io/trimaran/cluster/election"
	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
)

// Config is that of all three.
type Config struct {
	Self             string
	ClusterID        func() string
	Listener         net.Listener
	Dial             func(ctx context.Context, addr string) (net.Conn, error)
	Resolve          func(identity string) (addr string, ok bool)
	Handler          link.Handler
	Logger           *slog.Logger
	MaxConnections   int
	HeartbeatTimeout time.Duration
	MaxAppendEntries int
	OnOrphans        func([]Orphan)
	Answered         func(group string, req, resp any)
}

type (
	pulse = election.Pulse
	// Orphan is a group without a leader.
	Orphan = election.Orphan
	// GroupTransport is a member of a Raft group.
	GroupTransport = election.Member
)

// How far a node is reached.
const (
	Unheard = election.Unheard
	Reached = election.Reached
	Refused = election.Refused
)

// Errors of the link and of Raft's transport.
var (
	ErrNotSent   = link.ErrNotSent
	ErrInstalled = raftlink.ErrInstalled
)

// Link is a node's link, and its part in elections.
type Link struct {
	*link.Link
	*pulse
}

// New starts a link.
func New(c Config) *Link {
	l := link.New(link.Config{
		Self: c.Self, ClusterID: c.ClusterID, Listener: c.Listener, Dial: c.Dial, Resolve: c.Resolve,
		Handler: c.Handler, Logger: c.Logger, MaxConnections: c.MaxConnections,
	})
	rafts := raftlink.New(l, raftlink.Config{MaxAppendEntries: c.MaxAppendEntries, Answered: c.Answered})
	p := election.New(l, rafts, election.Config{HeartbeatTimeout: c.HeartbeatTimeout, OnOrphans: c.OnOrphans})
	l.Start()
	return &Link{l, p}
}

// Transport opens a group.
func (l *Link) Transport(group string) raft.Transport { return l.Open(group) }

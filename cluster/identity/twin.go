package identity

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/trimaran-io/trimaran/internal/ticks"
)

// A data directory that was copied makes two nodes of one identity. Each of them acknowledges
// records and votes in the name of both, which no majority survives. The lock in the directory does
// not tell. Gossip tells where another process says that it has this identity, which anybody can
// say; so that one is asked, and ends this node only with a proof that a copy alone can give.

// askWithin bounds one question to another process.
const askWithin = 3 * time.Second

// unprovenAfter is for how long another process must say that it is this node before that is
// logged. One that was ended is taken for alive for some seconds.
const unprovenAfter = time.Minute

// Answer is what another process of this identity answers, and under which identity it does.
type Answer struct {
	Identity string
	Process  Process
	Proof    [sha256.Size]byte
}

// Twins is how other processes of this identity are found and asked.
type Twins struct {
	// Self is this process.
	Self Process
	// Addresses are where processes listen for other nodes that say in gossip that they have this
	// identity, this one not among them.
	Addresses func() []string
	// Ask asks who listens at an address for its proof.
	Ask func(ctx context.Context, addr string, nonce [16]byte) (Answer, error)
	// Logger gets a line when somebody says that it is this node and does not prove it.
	Logger *slog.Logger
}

// WatchForTwin returns an error when another process is there that has this data directory, too,
// and has had it before this one, and nil when ctx ends.
func (id *Identity) WatchForTwin(ctx context.Context, others Twins) error {
	tick := ticks.New(time.Second)
	defer tick.Stop()
	unproven, said := 0, false
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		addrs := others.Addresses()
		if len(addrs) == 0 {
			unproven, said = 0, false
			continue
		}
		// One at a time, whatever gossip says: others could have this node knock at many doors.
		addr := addrs[turn%len(addrs)]
		twin, err := id.ask(ctx, others, addr)
		if err == nil && twin.before(others.Self) {
			return fmt.Errorf("node %s runs already, at %s: data directory %s is a copy of its own; start with an empty one", id.name, addr, id.dir.path)
		}
		if unproven++; unproven > int(unprovenAfter/time.Second) && !said && ctx.Err() == nil {
			said = true
			if err == nil {
				others.Logger.Error("a copy of this node's data directory runs, and should end by itself", "addr", addr)
				continue
			}
			others.Logger.Error("a process that gossips says that it is this node, and does not prove it; it is passed over", "addr", addr, "error", err)
		}
	}
}

// ask gives the process at an address if it has this data directory, and is not this one.
func (id *Identity) ask(ctx context.Context, others Twins, addr string) (Process, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var nonce [16]byte
	rand.Read(nonce[:])
	a, err := others.Ask(ctx, addr, nonce)
	if err != nil {
		return Process{}, err
	}
	want := id.Prove(nonce, a.Process)
	switch {
	case a.Identity != id.name:
		return Process{}, fmt.Errorf("%q is there", a.Identity)
	case !hmac.Equal(a.Proof[:], want[:]):
		return Process{}, errors.New("its proof is wrong")
	case a.Process.Boot == others.Self.Boot:
		return Process{}, errors.New("the way there leads to this process")
	}
	return a.Process, nil
}

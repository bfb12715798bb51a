package election

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/link"
	"github.com/trimaran-io/trimaran/cluster/raftlink"
)

// idle gives Beacons that do not run: what it owns is the test's.
func idle(cfg link.Config) (*link.Link, *Beacons) {
	l := link.New(cfg)
	return l, New(l, raftlink.New(l, raftlink.Config{}), Config{})
}

// A process that stood still has heard nobody. That is a reason to give those time who were there,
// and none to believe that a node is back which was gone before.
func TestWhoWasGoneIsGoneAfterAPause(t *testing.T) {
	var out bytes.Buffer
	l, p := idle(link.Config{Self: "a", Logger: slog.New(slog.NewTextHandler(&out, nil))})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dead, there := &silent{}, &silent{}
	tend := func(identity string, to peer, now int64) bool { return p.tend(p.nodes.named(identity), to, now, true) }
	now := l.Now() + int64(time.Hour)
	tend("b", dead, now)
	now += int64(time.Minute)
	if !tend("b", dead, now) {
		t.Fatal("a node of which nothing was ever heard is not gone")
	}
	now += int64(time.Minute)
	p.still.awake = now
	if !tend("b", dead, now) || strings.Contains(out.String(), "back") {
		t.Errorf("a dead node came back with this one:\n%s", out.String())
	}
	// One that was there has its time.
	there.heard = now - int64(time.Minute)
	tend("c", there, now)
	if tend("c", there, now+1) {
		t.Error("a node that was there is gone at once")
	}
	dead.heard = now
	if tend("b", dead, now+1) || !strings.Contains(out.String(), "back") {
		t.Error("a node that was heard is not back")
	}
}

// silent is a node to which there is no session.
type silent struct{ heard int64 }

func (r *silent) Look() link.View { return link.View{} }
func (r *silent) Heard() int64    { return r.heard }
func (r *silent) Dial()           {}

// Awake tells of a pause that run has not noticed yet, and not of moments in which the
// machine was busy.
func TestAwakeIsSinceTheLastLongPause(t *testing.T) {
	l, p := idle(link.Config{Self: "a"})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p.still.lastRound.Store(l.Now() + int64(time.Hour))
	if !p.Awake().IsZero() {
		t.Error("it has not stood still")
	}
	before := time.Now()
	p.still.lastRound.Store(l.Now() - int64(longStill) - 1)
	if at := p.Awake(); at.Before(before) {
		t.Errorf("it stood still until now, and says %v before", before.Sub(at))
	}
	p.still.resumed.Store(5)
	p.still.lastRound.Store(l.Now() + int64(time.Hour))
	if at := p.Awake(); !at.Equal(l.At(5)) {
		t.Errorf("%v after the start", at.Sub(l.At(0)))
	}
}

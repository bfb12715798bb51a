package coordinator

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// TestScripts runs testdata: a coordinator in virtual time. Commands are requests
// of the members a, b and so on (as=a); what they know of their member id and
// generation is filled in. Below a command stand the answers that came until nothing
// moved any more, also to requests of earlier commands, with the time since the
// script began.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		synctest.Test(t, func(t *testing.T) {
			s := &script{t: t, began: time.Now(), actors: make(map[string]*actor), topics: map[string][16]byte{"t1": {1}, "t2": {2}, "t3": {3}}}
			s.state, s.set = NewState(), DefaultSettings()
			s.lead()
			datadriven.RunTest(t, path, s.run)
			s.c.Close()
			for _, a := range s.actors {
				a.cancel()
			}
			synctest.Wait()
		})
	})
}

type script struct {
	t      *testing.T
	began  time.Time
	state  *State
	set    Settings
	c      *Coordinator
	topics map[string][16]byte
	actors map[string]*actor
	minted int

	mu sync.Mutex
	// replication is what happens to commands: "" they are applied, "lost" they are and nobody
	// knows, "fail" they are not, "deposed" not since this is not the leader, "hang" not yet.
	replication string
	resume      chan struct{}
	// says is what a transaction's coordinator says of it, see join; "": that it is in order.
	says       string
	resumeJoin chan struct{}
	answers    []answer // since the command began
}

type answer struct {
	at   time.Duration
	text string
}

func (s *script) answered(name, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = append(s.answers, answer{time.Since(s.began), name + ": " + text})
}

// actor is who asks; known is what it learned.
type actor struct {
	member     string
	generation int32
	ctx        context.Context
	cancel     context.CancelFunc
}

func (s *script) lead() {
	s.c = New(Config{
		State:   s.state,
		Propose: s.propose,
		TopicID: func(name string) ([16]byte, bool) { id, ok := s.topics[name]; return id, ok },
		TopicName: func(id [16]byte) (string, bool) {
			for name, i := range s.topics {
				if i == id {
					return name, true
				}
			}
			return "", false
		},
		Join:     s.join,
		Settings: s.set,
		Logger:   slog.New(slog.DiscardHandler),
	})
	s.c.mintID = func(prefix string) string { s.minted++; return fmt.Sprintf("%s-%d", prefix, s.minted) }
}

func (s *script) propose(ctx context.Context, command []byte) error {
	s.mu.Lock()
	replication, resume := s.replication, s.resume
	s.mu.Unlock()
	switch replication {
	case "fail":
		return errors.New("no majority")
	case "deposed":
		return fmt.Errorf("term 2: %w", ErrNotLeader)
	case "hang":
		select {
		case <-resume:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := s.state.Apply(command); err != nil || replication != "lost" {
		return err
	}
	return errors.New("timed out")
}

// join is what the coordinator of a transaction says of it.
func (s *script) join(ctx context.Context, t fsm.Transaction, producerID int64, epoch int16, group string) error {
	s.mu.Lock()
	says, resume := s.says, s.resumeJoin
	s.mu.Unlock()
	if says == "hang" {
		select {
		case <-resume:
		case <-ctx.Done():
			return outcome.ErrNoLeader
		}
	}
	what := "verify"
	if t.Add {
		what = "add"
	}
	s.answered("coordinator", fmt.Sprintf("%s %s of producer %d with epoch %d to %s", what, group, producerID, epoch, t.ID))
	return map[string]error{
		"not-in-it": outcome.ErrInvalidTxnState, "busy": outcome.ErrConcurrentTransactions, "fenced": outcome.ErrProducerFenced,
		"other-id": outcome.ErrInvalidProducerIDMapping, "abortable": outcome.ErrTransactionAbortable, "gone": outcome.ErrNoLeader,
	}[says]
}

// end is the marker of a transaction.
func (s *script) end(d *datadriven.TestData) {
	m := fsm.Marker{ProducerID: int64(number(d, "pid", 7)), Epoch: int16(number(d, "epoch", 0)), Number: int32(number(d, "number", 1)), Commit: d.HasArg("commit")}
	ctx := s.actor("end").ctx
	go func() {
		err := s.c.EndOffsets(ctx, text(d, "g", "g"), m)
		line := "ok"
		switch {
		case errors.Is(err, ErrNotLeader):
			line = "another coordinator is to be asked"
		case err != nil:
			line = "not known"
		}
		s.answered("end", line)
	}()
}

func (s *script) actor(name string) *actor {
	a := s.actors[name]
	if a == nil {
		a = &actor{generation: -1}
		a.ctx, a.cancel = context.WithCancel(context.Background())
		s.actors[name] = a
	}
	return a
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	text := s.command(d)
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortFunc(s.answers, func(a, b answer) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.text, b.text)) })
	for _, a := range s.answers {
		text += fmt.Sprintf("%s %s\n", a.at, a.text)
	}
	s.answers = nil
	if text == "" {
		return "(waits)\n"
	}
	return text
}

func (s *script) command(d *datadriven.TestData) string {
	switch d.Cmd {
	case "settings":
		return s.settings(d)
	case "advance":
		s.advance(d)
	case "failover":
		return s.failover()
	case "replication":
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.replication == "hang" {
			close(s.resume)
		}
		s.replication, s.resume = d.CmdArgs[0].Key, make(chan struct{})
		return s.replication + "\n"
	case "coordinator":
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.says == "hang" {
			close(s.resumeJoin)
		}
		s.says, s.resumeJoin = d.CmdArgs[0].Key, make(chan struct{})
		return s.says + "\n"
	case "end":
		s.end(d)
	case "topic":
		delete(s.topics, d.CmdArgs[0].Key)
		if n := number(d, "id", 0); n != 0 {
			s.topics[d.CmdArgs[0].Key] = [16]byte{byte(n)}
		}
		return fmt.Sprintf("%d topics\n", len(s.topics))
	case "cancel":
		s.actor(text(d, "as", "")).cancel()
		a := s.actor(text(d, "as", ""))
		a.ctx, a.cancel = context.WithCancel(context.Background())
	case "state":
		return s.dump()
	case "memory":
		return fmt.Sprintf("%d groups, %d bytes\n", len(s.c.live()), s.c.bytes.Load())
	default:
		name := text(d, "as", d.Cmd)
		s.send(name, int16(number(d, "v", 99)), s.request(d, s.actor(name)))
	}
	return ""
}

func (s *script) settings(d *datadriven.TestData) string {
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "delay":
			s.set.InitialRebalanceDelay = duration(d, arg.Key, 0)
		case "retention":
			s.set.OffsetsRetention = duration(d, arg.Key, 0)
		case "max-size":
			s.set.MaxGroupSize = number(d, arg.Key, 0)
		case "metadata":
			s.set.OffsetMetadataMaxBytes = number(d, arg.Key, 0)
		default:
			d.Fatalf(s.t, "no setting %s", arg.Key)
		}
	}
	s.c.Close()
	s.lead()
	return "ok\n"
}

// advance lets time pass. alive=(a,b) send a heartbeat each second meanwhile, of
// which the answers are shown when they change.
func (s *script) advance(d *datadriven.TestData) {
	last := make(map[string]int16)
	for end := time.Now().Add(duration(d, "", 0)); time.Now().Before(end); {
		time.Sleep(min(time.Second, time.Until(end)))
		synctest.Wait()
		for _, name := range list(d, "alive") {
			a := s.actor(name)
			req := kmsg.NewPtrHeartbeatRequest()
			req.Group, req.MemberID, req.Generation = text(d, "g", "g"), a.member, a.generation
			answer, err := s.ask(a, 99, req)
			if err != nil {
				s.t.Fatal(err)
			}
			resp := answer.(*kmsg.HeartbeatResponse)
			if resp.ErrorCode != last[name] {
				s.answered(name, "heartbeat: "+code(resp.ErrorCode))
			}
			last[name] = resp.ErrorCode
		}
	}
}

// failover is what the next leader makes of the state, by way of a snapshot.
func (s *script) failover() string {
	s.c.Close()
	synctest.Wait()
	snapshot := s.state.Snapshot()
	state, err := RestoreState(snapshot)
	if err != nil {
		s.t.Fatal(err)
	}
	if !bytes.Equal(state.Snapshot(), snapshot) || state.size() != s.state.size() {
		s.t.Fatal("the restored state is another one")
	}
	s.state = state
	s.lead()
	return "another leader\n"
}

func (s *script) dump() string {
	text := ""
	for _, id := range s.state.ids() {
		meta, _ := s.state.lookUp(id)
		text += fmt.Sprintf("group %q", id)
		if meta != nil {
			text += fmt.Sprintf(" generation %d %s %q leader %q", meta.Generation, meta.ProtocolType, meta.Protocol, meta.Leader)
			for _, m := range meta.Members {
				text += fmt.Sprintf("\n  %s got %q", m.ID, m.Assignment)
				if m.Session == goneSession {
					text += ", has left"
				}
			}
		}
		text += "\n"
		for _, o := range s.state.offsets(id) {
			text += fmt.Sprintf("  %s/%d = %d %q\n", o.Topic, o.Partition, o.Offset.Offset, o.Metadata)
		}
	}
	for p := range s.state.machine.Idle {
		text += fmt.Sprintf("producer %d has ended a transaction with group %q\n", p.ID, p.Group)
	}
	if text == "" {
		return "nothing\n"
	}
	return text
}

func (s *script) ask(a *actor, version int16, req kmsg.Request) (kmsg.Response, error) {
	travels, ok := Version(req.Key())
	if !ok {
		s.t.Fatalf("%T has no version", req)
	}
	req.SetVersion(travels)
	sent := kmsg.RequestForKey(req.Key())
	sent.SetVersion(travels)
	if err := sent.ReadFrom(req.AppendTo(nil)); err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.c.Handle(a.ctx, Client{ID: "client", Host: "/127.0.0.1", Version: version}, sent)
	if err != nil {
		return nil, err
	}
	received := req.ResponseKind()
	if err := received.ReadFrom(resp.AppendTo(nil)); err != nil {
		s.t.Fatal(err)
	}
	return received, nil
}

func (s *script) send(name string, version int16, req kmsg.Request) {
	a := s.actor(name)
	go func() {
		resp, err := s.ask(a, version, req)
		line := "no answer"
		switch {
		case err == nil:
			line = a.learn(resp)
		case errors.Is(err, ErrNotLeader):
			line = "another coordinator is to be asked"
		}
		s.answered(name, line)
	}()
}

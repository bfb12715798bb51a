package transaction

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/fsm/transactions"
	"github.com/trimaran-io/trimaran/outcome"
)

// TestScripts runs testdata: a coordinator in virtual time. Commands are requests of the producers
// a, b and so on (as=a); what they know of their producer id and epoch is filled in. Below a
// command stand the answers that came and the markers that were written until nothing moved any
// more, also those of earlier commands, with the time since the script began.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		synctest.Test(t, func(t *testing.T) {
			s := &script{
				t: t, began: time.Now(), actors: make(map[string]*actor), down: make(map[string]string), version: 2, nextID: 1000,
				topics: map[string][16]byte{"t1": {1}, "t2": {2}, "t3": {3}}, state: NewState(), set: DefaultSettings(),
			}
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
	actors map[string]*actor

	counters Counters

	mu    sync.Mutex
	awake time.Time
	// replication is what happens to commands: "" they are applied, "fail" they are not, "deposed"
	// not since this is not the leader, "lost" they are and nobody knows, "late" nobody knows, and
	// they are applied before the next that is, "hang" not yet.
	replication string
	resume      chan struct{}
	late        [][]byte
	applied     int // commands, since it was asked
	topics      map[string][16]byte
	down        map[string]string // a target's name: "down" or "gone"
	version     int
	ahead       bool
	begun       map[string]bool // targets whose next answer says that the next transaction is open
	nextID      int64           // -1: there is none
	answers     []answer        // since the command began
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

// actor is who asks; the identity is what it learned.
type actor struct {
	identity
	id     string
	ctx    context.Context
	cancel context.CancelFunc
}

func (s *script) lead() {
	s.c = New(Config{
		State: s.state, Propose: s.propose, NewProducerID: s.newProducerID,
		TopicID: func(name string) ([16]byte, bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			id, ok := s.topics[name]
			return id, ok
		},
		TopicName: s.topicName,
		WriteMarker: func(ctx context.Context, p fsm.PartitionID, m fsm.Marker) (bool, error) {
			name := s.nameOf(p)
			err := s.marker(name, m)
			s.mu.Lock()
			defer s.mu.Unlock()
			begun := err == nil && s.begun[name]
			if begun {
				delete(s.begun, name)
			}
			return begun, err
		},
		Ahead:      func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.ahead },
		EndOffsets: func(ctx context.Context, group string, m fsm.Marker) error { return s.marker("group "+group, m) },
		Version:    func() int { s.mu.Lock(); defer s.mu.Unlock(); return s.version },
		Awake:      func() time.Time { s.mu.Lock(); defer s.mu.Unlock(); return s.awake },
		Settings:   s.set, Counters: &s.counters, Logger: slog.New(slog.DiscardHandler),
	})
}

func (s *script) topicName(id [16]byte) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, i := range s.topics {
		if i == id {
			return name, true
		}
	}
	return "", false
}

func (s *script) nameOf(p fsm.PartitionID) string {
	name, ok := s.topicName(p.Topic)
	if !ok {
		name = "deleted"
	}
	return fmt.Sprintf("%s/%d", name, p.Partition)
}

func (s *script) marker(to string, m fsm.Marker) error {
	s.mu.Lock()
	down := s.down[to]
	s.mu.Unlock()
	switch {
	case down == "gone" || strings.HasPrefix(to, "deleted"):
		return fmt.Errorf("it: %w", outcome.ErrUnknownTopicOrPartition)
	case down == "down":
		return outcome.ErrNoLeader
	}
	what := "abort"
	if m.Commit {
		what = "commit"
	}
	s.answered(to, fmt.Sprintf("%s of %d, epoch %d, number %d", what, m.ProducerID, m.Epoch, m.Number))
	return nil
}

func (s *script) newProducerID(context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nextID == -1 {
		return 0, errors.New("no catalog")
	}
	s.nextID++
	return s.nextID, nil
}

func (s *script) propose(ctx context.Context, command []byte) error {
	s.mu.Lock()
	replication, resume := s.replication, s.resume
	s.mu.Unlock()
	switch replication {
	case "fail":
		return errors.New("no majority")
	case "deposed":
		return fmt.Errorf("term 2: %w", coordinator.ErrNotLeader)
	case "late":
		s.mu.Lock()
		defer s.mu.Unlock()
		s.late = append(s.late, command)
		return errors.New("timed out")
	case "hang":
		select {
		case <-resume:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	late := append(s.late, command)
	s.late = nil
	for _, command := range late {
		if err := s.state.Apply(command); err != nil {
			s.t.Fatal(err)
		}
		s.applied++
	}
	if replication == "lost" {
		return errors.New("timed out")
	}
	return nil
}

func (s *script) actor(name string) *actor {
	a := s.actors[name]
	if a == nil {
		a = &actor{identity: none, id: "x"}
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
	slices.SortStableFunc(s.answers, func(a, b answer) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.text, b.text)) })
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
		s.set.MaxTimeout = duration(d, "max", s.set.MaxTimeout)
		s.set.IDExpiration = duration(d, "expiration", s.set.IDExpiration)
		s.set.EndWait = duration(d, "wait", s.set.EndWait)
		return s.failover()
	case "advance":
		time.Sleep(duration(d, "", 0))
	case "failover":
		return s.failover()
	case "renew": // as the next leader finds the state after a recovery
		for _, command := range s.state.machine.Renew(1 << 20) {
			if err := s.state.Apply(command); err != nil {
				s.t.Fatal(err)
			}
		}
		return s.failover()
	case "stood-still":
		s.mu.Lock()
		defer s.mu.Unlock()
		s.awake = time.Now()
		return "awake again\n"
	case "replication":
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.replication == "hang" {
			close(s.resume)
		}
		s.replication, s.resume = d.CmdArgs[0].Key, make(chan struct{})
		return s.replication + "\n"
	case "target":
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, arg := range d.CmdArgs[1:] {
			s.down[strings.ReplaceAll(arg.Key, "group=", "group ")] = d.CmdArgs[0].Key
		}
		return d.CmdArgs[0].Key + "\n"
	case "ahead":
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ahead = true
		return "the next transaction may begin ahead\n"
	case "begun": // these targets and no others say so, once
		s.mu.Lock()
		defer s.mu.Unlock()
		s.begun = make(map[string]bool)
		for _, arg := range d.CmdArgs {
			s.begun[arg.Key] = true
		}
		return fmt.Sprintf("%d targets\n", len(s.begun))
	case "delete-topic":
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.topics, d.CmdArgs[0].Key)
		return fmt.Sprintf("%d topics\n", len(s.topics))
	case "version":
		s.mu.Lock()
		defer s.mu.Unlock()
		s.version = number(d, "", 0)
		return fmt.Sprintf("transaction.version %d\n", s.version)
	case "producer-ids":
		s.mu.Lock()
		defer s.mu.Unlock()
		s.nextID = int64(number(d, "", 0))
		return fmt.Sprintf("the next is %d\n", s.nextID+1)
	case "epoch": // as if that many had been given out before
		p, revision := s.state.lookUp(text(d, "id", "x"))
		p.Epoch = int16(number(d, "", 0))
		var c transactions.Changes
		after := revision
		c.Set(text(d, "id", "x"), after, revision, p)
		if err := s.state.Apply(transactions.Encode(c)); err != nil {
			s.t.Fatal(err)
		}
		for _, a := range s.actors {
			if a.producerID == p.ProducerID {
				a.epoch = p.Epoch
			}
		}
		return fmt.Sprintf("epoch %d\n", p.Epoch)
	case "room":
		s.c.maxState = number(d, "", 0)
		return fmt.Sprintf("%d bytes\n", s.c.maxState)
	case "cancel":
		a := s.actor(text(d, "as", ""))
		a.cancel()
		a.ctx, a.cancel = context.WithCancel(context.Background())
	case "state":
		return s.dump()
	case "commands":
		s.mu.Lock()
		defer s.mu.Unlock()
		n := s.applied
		s.applied = 0
		return fmt.Sprintf("%d commands\n", n)
	case "counters":
		c := &s.counters
		return fmt.Sprintf("committed %d, aborted %d, timed out %d, fenced %d\n", c.Committed.Load(), c.Aborted.Load(), c.TimedOut.Load(), c.Fenced.Load())
	case "memory":
		s.c.mu.Lock()
		defer s.c.mu.Unlock()
		s.c.markers.mu.Lock()
		defer s.c.markers.mu.Unlock()
		return fmt.Sprintf("%d lines, %d targets\n", len(s.c.lines), len(s.c.markers.targets))
	default:
		name := text(d, "as", "a")
		s.send(d, name, s.actor(name))
	}
	return ""
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
	out := ""
	for _, id := range s.state.ids() {
		p, _ := s.state.lookUp(id)
		out += fmt.Sprintf("%s: %s of %d, epoch %d, last %d, number %d, version %d", id, p.Phase, p.ProducerID, p.Epoch, p.LastEpoch, p.Number, p.Version)
		if p.Next != -1 {
			out += fmt.Sprintf(", next %d", p.Next)
		}
		if p.Previous != p.ProducerID {
			out += fmt.Sprintf(", previous %d", p.Previous)
		}
		scope := s.state.scope(id)
		for _, p := range scope.Partitions {
			out += " " + s.nameOf(p)
		}
		for _, g := range scope.Groups {
			out += " group " + g
		}
		out += "\n"
	}
	if out == "" {
		return "nothing\n"
	}
	return out
}

// send sends the request of a command; its answer comes when it comes.
func (s *script) send(d *datadriven.TestData, name string, a *actor) {
	version, ctx := int16(number(d, "v", 99)), a.ctx
	client, req, cmd, c := Client{Version: version}, s.request(d, a), d.Cmd, s.c
	go func() {
		resp, err := c.Handle(ctx, client, req)
		if err != nil {
			s.answered(name, cmd+": "+err.Error())
			return
		}
		s.answered(name, cmd+": "+s.shown(resp, a))
	}()
}

func (s *script) request(d *datadriven.TestData, a *actor) kmsg.Request {
	a.id = text(d, "id", a.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	from := identity{int64(number(d, "pid", int(a.producerID))), int16(number(d, "epoch", int(a.epoch)))}
	switch d.Cmd {
	case "init", "recover":
		req := kmsg.NewPtrInitProducerIDRequest()
		req.Version, req.ProducerID, req.ProducerEpoch = 5, -1, -1
		if d.Cmd == "recover" {
			req.ProducerID, req.ProducerEpoch = from.producerID, from.epoch
		}
		if a.id != "none" {
			req.TransactionalID = &a.id
		}
		req.TransactionTimeoutMillis = int32(duration(d, "timeout", time.Minute).Milliseconds())
		return req
	case "add", "verify":
		txn := kmsg.NewAddPartitionsToTxnRequestTransaction()
		txn.TransactionalID, txn.ProducerID, txn.ProducerEpoch = a.id, from.producerID, from.epoch
		txn.VerifyOnly = d.Cmd == "verify"
		if ended := number(d, "ended", 0); ended != 0 { // as a leader does
			txn.UnknownTags.Set(endedTag, binary.BigEndian.AppendUint32(nil, uint32(ended)))
		}
		for _, arg := range d.CmdArgs {
			topic, partition, is := strings.Cut(arg.Key, "/")
			if arg.Key == "group" {
				topic, partition, is = groupPrefix+arg.Vals[0], "0", true
			}
			if !is {
				continue
			}
			n, err := strconv.Atoi(partition)
			if err != nil {
				d.Fatalf(s.t, "%v", err)
			}
			t := kmsg.NewAddPartitionsToTxnRequestTransactionTopic()
			t.Topic, t.Partitions = topic, []int32{int32(n)}
			txn.Topics = append(txn.Topics, t)
		}
		req := kmsg.NewPtrAddPartitionsToTxnRequest()
		req.Version = 5
		req.Transactions = append(req.Transactions, txn)
		return req
	case "offsets":
		req := kmsg.NewPtrAddOffsetsToTxnRequest()
		req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch = 4, a.id, from.producerID, from.epoch
		req.Group = text(d, "g", "g")
		return req
	case "commit", "abort":
		req := kmsg.NewPtrEndTxnRequest()
		req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch = 5, a.id, from.producerID, from.epoch
		req.Commit = d.Cmd == "commit"
		return req
	case "describe":
		req := kmsg.NewPtrDescribeTransactionsRequest()
		req.TransactionalIDs = []string{a.id}
		return req
	case "list":
		req := kmsg.NewPtrListTransactionsRequest()
		req.Version = 2
		if state := text(d, "state", ""); state != "" {
			req.StateFilters = []string{state}
		}
		if pid := number(d, "of", 0); pid != 0 {
			req.ProducerIDFilters = []int64{int64(pid)}
		}
		req.DurationFilterMillis = duration(d, "longer", -time.Millisecond).Milliseconds()
		if pattern := text(d, "pattern", ""); pattern != "" {
			req.TransactionalIDPattern = &pattern
		}
		return req
	}
	d.Fatalf(s.t, "no command %s", d.Cmd)
	return nil
}

// shown is a response in words. What it tells a producer of its identity, that learns.
func (s *script) shown(resp kmsg.Response, a *actor) string {
	learn := func(id int64, epoch int16) string {
		if id == -1 {
			return ""
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		a.identity = identity{id, epoch}
		return fmt.Sprintf(", %d epoch %d", id, epoch)
	}
	switch r := resp.(type) {
	case *kmsg.InitProducerIDResponse:
		return code(r.ErrorCode) + learn(r.ProducerID, r.ProducerEpoch)
	case *kmsg.EndTxnResponse:
		return code(r.ErrorCode) + learn(r.ProducerID, r.ProducerEpoch)
	case *kmsg.AddOffsetsToTxnResponse:
		return code(r.ErrorCode)
	case *kmsg.AddPartitionsToTxnResponse:
		var all []string
		for _, t := range r.Transactions[0].Topics {
			for _, p := range t.Partitions {
				all = append(all, fmt.Sprintf("%s/%d %s", t.Topic, p.Partition, code(p.ErrorCode)))
			}
		}
		return strings.Join(all, ", ")
	case *kmsg.DescribeTransactionsResponse:
		t := r.TransactionStates[0]
		line := fmt.Sprintf("%s %q timeout %d start %d, %d epoch %d", code(t.ErrorCode), t.State, t.TimeoutMillis, max(t.StartTimestamp-s.began.UnixMilli(), -1), t.ProducerID, t.ProducerEpoch)
		for _, topic := range t.Topics {
			line += fmt.Sprintf(" %s%d", topic.Topic, topic.Partitions)
		}
		return line
	case *kmsg.ListTransactionsResponse:
		line := code(r.ErrorCode)
		for _, t := range r.TransactionStates {
			line += fmt.Sprintf(" %s(%d %s)", t.TransactionalID, t.ProducerID, t.TransactionState)
		}
		if len(r.UnknownStateFilters) > 0 {
			line += fmt.Sprintf(" unknown states %s", r.UnknownStateFilters)
		}
		return line
	}
	return fmt.Sprintf("%T", resp)
}

func code(c int16) string {
	if err := kerr.TypedErrorForCode(c); err != nil {
		return err.Message
	}
	return "ok"
}

// text is the value of a command's argument key; if key is "", of its first argument.
func text(d *datadriven.TestData, key, otherwise string) string {
	for _, arg := range d.CmdArgs {
		if key == "" {
			return arg.Key
		}
		if arg.Key == key && len(arg.Vals) > 0 {
			return arg.Vals[0]
		}
	}
	return otherwise
}

func number(d *datadriven.TestData, key string, otherwise int) int {
	n, err := strconv.Atoi(text(d, key, strconv.Itoa(otherwise)))
	if err != nil {
		return math.MinInt32
	}
	return n
}

func duration(d *datadriven.TestData, key string, otherwise time.Duration) time.Duration {
	v, err := time.ParseDuration(text(d, key, otherwise.String()))
	if err != nil {
		panic(err)
	}
	return v
}

package fsm

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// TestCatalogScripts runs testdata/catalog: every command of a script is applied
// at the next index, and what the proposer would be told is the expected output.
func TestCatalogScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/catalog", func(t *testing.T, path string) {
		s := &catalogScript{c: NewCatalog()}
		datadriven.RunTest(t, path, s.run)
	})
}

type catalogScript struct {
	c     *Catalog
	index Index
}

func (s *catalogScript) run(t *testing.T, d *datadriven.TestData) string {
	var c CatalogCommand
	switch d.Cmd {
	case "form":
		c.FormCluster = &FormCluster{ClusterID: argument(d, "id"), Nodes: nodes(t, d.Input)}
	case "register":
		c.RegisterNode = &nodes(t, d.Input)[0]
	case "remove":
		node := nodes(t, d.Input)[0]
		c.RemoveNode = &RemoveNode{ID: node.ID, Incarnation: node.Incarnation}
	case "create", "check":
		topic := s.topic(t, d)
		if d.Cmd == "check" {
			return told(s.c.View().CheckCreate(&topic))
		}
		c.CreateTopic = &CreateTopic{Topic: topic}
	case "delete":
		c.DeleteTopic = &DeleteTopic{Name: argument(d, "name"), ID: topicID(t, argument(d, "id"))}
	case "alter":
		c.AlterConfigs = &AlterConfigs{Topic: topicID(t, argument(d, "id")), Replace: d.HasArg("replace")}
		for line := range strings.Lines(d.Input) {
			op, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			name, value, _ := strings.Cut(rest, "=")
			c.AlterConfigs.Changes = append(c.AlterConfigs.Changes, ConfigChange{Name: name, Op: ConfigOp(op), Value: value})
		}
	case "add-partitions":
		topic := s.topic(t, d)
		c.CreatePartitions = &CreatePartitions{Topic: topic.ID, From: integer(t, argument(d, "from"), 0), Partitions: topic.Partitions}
	case "producer-ids":
		c.AllocateProducerIDs = &AllocateProducerIDs{Count: int64(integer(t, argument(d, "count"), 0))}
		s.index++
		if result := s.c.Apply(s.index, c.Encode()); result.Err != nil {
			return told(result.Err)
		} else {
			return fmt.Sprintf("from %d on", result.FirstProducerID)
		}
	case "raw":
		return s.apply([]byte(d.Input))
	case "show":
		return show(s.c.View())
	case "restart":
		return s.restart(t)
	case "damage":
		return damage(t, d, s.c.Snapshot(), func(b []byte) error { _, err := RestoreCatalog(b); return err })
	case "encode":
		return string(CatalogCommand{RegisterNode: &nodes(t, d.Input)[0]}.Encode())
	default:
		d.Fatalf(t, "no such command")
	}
	return s.apply(c.Encode())
}

func (s *catalogScript) apply(cmd []byte) string {
	s.index++
	before := contents(s.c)
	view := s.c.View()
	result := s.c.Apply(s.index, cmd)
	text := told(result.Err)
	if s.c.View() == view {
		if contents(s.c) != before {
			return text + "\nTHE STATE CHANGED BEHIND THE VIEW"
		}
		return text + ", nothing changed"
	}
	return fmt.Sprintf("%s, version %d", text, s.c.View().Version())
}

// contents is everything that makes up the catalog but the count of what was applied.
func contents(c *Catalog) string {
	still := *c
	still.applied = c.view.version
	return string(still.Snapshot())
}

// restart goes on with what a snapshot of the catalog gives.
func (s *catalogScript) restart(t *testing.T) string {
	snapshot := s.c.Snapshot()
	c, err := RestoreCatalog(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(c.Snapshot(), snapshot) {
		t.Fatalf("a restored catalog has another snapshot:\n%s\n%s", snapshot, c.Snapshot())
	}
	s.c = c
	return "same bytes"
}

// topic reads "create NAME id=1 [rf=N]" with lines "0: a b c" and "name=value".
func (s *catalogScript) topic(t *testing.T, d *datadriven.TestData) Topic {
	topic := Topic{Name: argument(d, "name"), ID: topicID(t, argument(d, "id"))}
	for line := range strings.Lines(d.Input) {
		line = strings.TrimSpace(line)
		if number, replicas, ok := strings.Cut(line, ": "); ok {
			if number != strconv.Itoa(len(topic.Partitions)) {
				d.Fatalf(t, "partition %s is out of order", number)
			}
			p := Partition{}
			for _, id := range strings.Fields(replicas) {
				p.Replicas = append(p.Replicas, NodeID(id))
			}
			p.Bootstrap = p.Replicas
			topic.Partitions = append(topic.Partitions, p)
			topic.ReplicationFactor = len(topic.Partitions[0].Replicas)
		} else if name, value, ok := strings.Cut(line, "="); ok {
			if topic.Configs == nil {
				topic.Configs = map[string]string{}
			}
			topic.Configs[name] = value
		}
	}
	if rf := argument(d, "rf"); rf != "" {
		topic.ReplicationFactor, _ = strconv.Atoi(rf)
	}
	if d.HasArg("bootstrap") {
		topic.Partitions[0].Bootstrap = []NodeID{NodeID(argument(d, "bootstrap"))}
	}
	return topic
}

// nodes reads lines "id.incarnation [zone]".
func nodes(t *testing.T, text string) []Node {
	var list []Node
	for line := range strings.Lines(text) {
		identity, zone, _ := strings.Cut(strings.TrimSpace(line), " ")
		id, incarnation, _ := strings.Cut(identity, ".")
		list = append(list, Node{ID: NodeID(id), Incarnation: incarnation, Zone: zone})
	}
	if len(list) == 0 {
		list = append(list, Node{})
	}
	return list
}

func topicID(t *testing.T, number string) (id TopicID) {
	if number == "" {
		return id
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	id[15] = byte(n)
	return id
}

func show(view *Topics) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster %q, version %d\n", view.ClusterID(), view.Version())
	for _, n := range view.Nodes() {
		fmt.Fprintf(&b, "node %s", n.Identity())
		if n.Zone != "" {
			fmt.Fprintf(&b, " in %s", n.Zone)
		}
		b.WriteByte('\n')
	}
	for _, topic := range view.All() {
		fmt.Fprintf(&b, "topic %s, id %d, replication factor %d, max.message.bytes %d\n", topic.Name, topic.ID[15], topic.ReplicationFactor, topic.MaxMessageBytes(nil))
		for _, name := range slices.Sorted(maps.Keys(topic.Configs)) {
			fmt.Fprintf(&b, "  %s=%s\n", name, topic.Configs[name])
		}
		for i, p := range topic.Partitions {
			fmt.Fprintf(&b, "  %d: %s\n", i, p.Replicas)
		}
	}
	return b.String()
}

// TestPartitionScripts runs testdata/partition: every command of a script is the
// next entry of the log, or a question.
func TestPartitionScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/partition", func(t *testing.T, path string) {
		s := &partitionScript{p: NewPartition()}
		datadriven.RunTest(t, path, s.run)
	})
}

type partitionScript struct {
	p      *PartitionState
	ahead  ProducersAhead
	guards map[string]*Guard
	index  Index
	large  []byte // shared by batches so large that their bytes are not worth making
}

func (s *partitionScript) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "entry":
		return s.entry(t, d)
	case "entries":
		for range integer(t, argument(d, "count"), 1) {
			size, records := integer(t, argument(d, "bytes"), 100), integer(t, argument(d, "records"), 1)
			if len(s.large) != size {
				s.large = make([]byte, size)
			}
			fillHeader(s.large, s.p.NextOffset(), records, 1)
			s.index++
			if a := s.p.Apply(Entry{Index: s.index, Term: 1, AppendedAt: int64(integer(t, argument(d, "at"), 0)), Data: s.large}); a.Err != nil {
				t.Fatal(a.Err)
			}
		}
		return fmt.Sprintf("next offset %d", s.p.NextOffset())
	case "log-start":
		s.index++
		return s.told(s.p.Apply(Entry{Index: s.index, Term: 1, Data: LogStartCommand(Offset(integer(t, argument(d, "at"), 0)))}))
	case "again":
		return s.told(s.p.Apply(Entry{Index: Index(integer(t, argument(d, "index"), 1)), Term: 1, Data: newBatch(s.p.NextOffset(), 1, 0, 1, 0)}))
	case "state":
		p := s.p
		return fmt.Sprintf("applied %d, log start %d, next %d, chain %016x, snapshot of %d bytes",
			p.LastApplied(), p.LogStart(), p.NextOffset(), p.HashChain(), len(p.Snapshot()))
	case "producers":
		return showProducers(s.p.Producers())
	case "transactions":
		return showTransactions(s.p)
	case "drop":
		s.p.DropAborted(Offset(integer(t, argument(d, "before"), 0)))
		return showTransactions(s.p)
	case "guard", "propose", "propose-marker", "applied":
		return s.proposer(t, d)
	case "judge":
		b := newBatch(0, integer(t, argument(d, "records"), 1), 100, 1, 'x')
		fillProducer(b, int64(integer(t, argument(d, "producer"), 0)), integer(t, argument(d, "of-epoch"), 0), integer(t, argument(d, "sequence"), 0), 0)
		h, _ := kafkaproto.ParseBatchHeader(b)
		p, _ := s.p.Producer(h.ProducerID)
		original, duplicate, err := p.Judge(h)
		if duplicate {
			return fmt.Sprintf("duplicate of %d", original.Base)
		}
		return told(err)
	case "restart":
		snapshot := s.p.Snapshot()
		p, err := RestorePartition(snapshot)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p.Snapshot(), snapshot) {
			t.Fatalf("a restored partition has another snapshot")
		}
		s.p = p
		return "same bytes"
	case "damage":
		return damage(t, d, s.p.Snapshot(), func(b []byte) error { _, err := RestorePartition(b); return err })
	}
	d.Fatalf(t, "no such command")
	return ""
}

// proposer is what a proposer asks of the producers ahead of the state machine.
func (s *partitionScript) proposer(t *testing.T, d *datadriven.TestData) string {
	number := func(name string, missing int) int { return integer(t, argument(d, name), missing) }
	b := newBatch(0, number("records", 1), 100, 1, 'x')
	if !d.HasArg("plain") {
		b[22] |= 0x10
	}
	fillProducer(b, int64(number("producer", 0)), number("of-epoch", 0), number("sequence", 0), 0)
	h, _ := kafkaproto.ParseBatchHeader(b)
	switch d.Cmd {
	case "guard":
		g := s.ahead.Guard(h, s.p)
		if g == nil {
			return "none is needed"
		}
		if s.guards == nil {
			s.guards = map[string]*Guard{}
		}
		s.guards[argument(d, "as")] = g
		return "the coordinator is to be asked"
	case "propose":
		a := Admission{Guard: s.guards[argument(d, "guard")], Add: d.HasArg("add")}
		if d.HasArg("refused") {
			a.Refused = outcome.ErrInvalidTxnState
		}
		v := s.ahead.Take(h, s.p.NextOffset(), a, s.p)
		if a.Guard != nil {
			s.ahead.Release(a.Guard)
		}
		if v.Duplicate {
			return fmt.Sprintf("duplicate of %d", v.Original.Base)
		}
		return told(v.Err)
	case "propose-marker":
		m := Marker{ProducerID: h.ProducerID, Epoch: h.ProducerEpoch, Number: int32(number("number", 1)), Commit: d.HasArg("commit"), Forced: d.HasArg("forced")}
		number, v := s.ahead.TakeMarker(m, s.p)
		if v.Duplicate {
			return "it was here"
		}
		if v.Err == nil {
			return fmt.Sprintf("done, with number %d", number)
		}
		return told(v.Err)
	}
	s.ahead.Applied(h.ProducerID)
	return "done"
}

func showTransactions(p *PartitionState) string {
	var b strings.Builder
	fmt.Fprintf(&b, "last stable offset %d\n", p.LastStable())
	for _, o := range p.Open() {
		fmt.Fprintf(&b, "producer %d has one open from %d on, since %d\n", o.ProducerID, o.First, o.Since)
	}
	for _, a := range p.Aborted() {
		fmt.Fprintf(&b, "producer %d has one aborted from %d to %d, last stable offset %d\n", a.ProducerID, a.First, a.Last, a.LastStable)
	}
	return b.String()
}

// entry reads lines "batch base=0 records=1 bytes=100 epoch=1" "marker base=1 number=1" and
// "hex 00ff".
func (s *partitionScript) entry(t *testing.T, d *datadriven.TestData) string {
	term := integer(t, argument(d, "term"), 1)
	var data []byte
	for line := range strings.Lines(d.Input) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch kind {
		case "hex":
			b, err := hex.DecodeString(strings.ReplaceAll(rest, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			data = append(data, b...)
		case "batch":
			v := map[string]string{}
			for _, field := range strings.Fields(rest) {
				name, value, _ := strings.Cut(field, "=")
				v[name] = value
			}
			records := integer(t, v["records"], 1)
			b := newBatch(Offset(integer(t, v["base"], 0)), records, integer(t, v["bytes"], 100), LeaderEpoch(integer(t, v["epoch"], term)), 'x')
			if v["count"] != "" { // a header that says another number of records
				b[60] = byte(integer(t, v["count"], records))
			}
			if v["producer"] != "" {
				fillProducer(b, int64(integer(t, v["producer"], 0)), integer(t, v["of-epoch"], 0), integer(t, v["sequence"], 0), int64(integer(t, v["time"], 0)))
			}
			if v["transactional"] != "" {
				b[22] |= 0x10
				fillProducer(b, int64(integer(t, v["producer"], 0)), integer(t, v["of-epoch"], 0), integer(t, v["sequence"], 0), 0)
			}
			if v["cut"] != "" {
				b = b[:len(b)-integer(t, v["cut"], 0)]
			}
			data = append(data, b...)
		case "marker":
			v := map[string]string{}
			for _, field := range strings.Fields(rest) {
				name, value, _ := strings.Cut(field, "=")
				v[name] = value
			}
			m := Marker{ProducerID: int64(integer(t, v["producer"], 0)), Epoch: int16(integer(t, v["of-epoch"], 0)), Number: int32(integer(t, v["number"], 1)), Commit: v["commit"] != ""}
			data = append(data, newMarker(Offset(integer(t, v["base"], 0)), LeaderEpoch(term), m)...)
		default:
			d.Fatalf(t, "no such line: %s", line)
		}
	}
	s.index++
	return s.told(s.p.Apply(Entry{Index: s.index, Term: Term(term), AppendedAt: int64(integer(t, argument(d, "at"), 0)), Data: data}))
}

func (s *partitionScript) told(a Applied) string {
	var b strings.Builder
	for _, batch := range a.Batches {
		if batch.BaseOffset < 0 {
			fmt.Fprintf(&b, "void\n")
		} else {
			fmt.Fprintf(&b, "appended at %d, log start %d\n", batch.BaseOffset, batch.LogStart)
		}
	}
	if a.Breach != nil {
		fmt.Fprintf(&b, "breach: %v\n", a.Breach)
	}
	fmt.Fprintf(&b, "%s, next offset %d, log start %d", told(a.Err), s.p.NextOffset(), s.p.LogStart())
	return b.String()
}

func showProducers(producers []ProducerState) string {
	var b strings.Builder
	for _, p := range producers {
		fmt.Fprintf(&b, "producer %d epoch %d, last at %d:", p.ID, p.Epoch, p.LastAppend)
		for _, batch := range p.Batches() {
			fmt.Fprintf(&b, " %d-%d at %d", batch.First, batch.Last, batch.Base)
		}
		if p.Ended != 0 {
			fmt.Fprintf(&b, ", transaction %d was ended", p.Ended)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// damage reads "damage cut=N", "damage flip=AT", "damage version=N" or
// "damage magic=TEXT" and says how the damaged snapshot is refused.
func damage(t *testing.T, d *datadriven.TestData, snapshot []byte, restore func([]byte) error) string {
	b := slices.Clone(snapshot)
	switch {
	case d.HasArg("cut"):
		b = b[:len(b)-integer(t, argument(d, "cut"), 0)]
	case d.HasArg("keep"):
		b = b[:integer(t, argument(d, "keep"), 0)]
	case d.HasArg("flip"):
		b[integer(t, argument(d, "flip"), 0)] ^= 0x10
	case d.HasArg("version"):
		b = seal(string(b[:4]), uint16(integer(t, argument(d, "version"), 0)), func(head []byte) []byte { return append(head, b[6:len(b)-4]...) })
	case d.HasArg("payload"):
		b = seal(string(b[:4]), 1, func(head []byte) []byte { return append(head, d.Input...) })
	case d.HasArg("magic"):
		copy(b, argument(d, "magic"))
	}
	err := restore(b)
	if err == nil {
		return "restored"
	}
	if !errors.Is(err, ErrSnapshot) {
		t.Fatalf("not an ErrSnapshot: %v", err)
	}
	// CRCs of JSON tell a reader nothing and change with every field.
	if i := strings.Index(err.Error(), ": CRC "); i > 0 {
		return err.Error()[:i]
	}
	return err.Error()
}

func told(err error) string {
	if err == nil {
		return "done"
	}
	if outcome.Code(err) == outcome.ErrUnknown && !errors.Is(err, outcome.ErrUnknown) {
		return "UNLISTED ERROR: " + err.Error()
	}
	return "refused: " + err.Error()
}

// argument gives an argument's value, "" if it is missing. The first argument
// without a value is "name".
func argument(d *datadriven.TestData, name string) string {
	for _, a := range d.CmdArgs {
		if a.Key == name && len(a.Vals) > 0 {
			return a.Vals[0]
		}
		if name == "name" && len(a.Vals) == 0 {
			return a.Key
		}
	}
	return ""
}

func integer(t *testing.T, text string, missing int) int {
	if text == "" {
		return missing
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A script's commands are encoded by the same package that decodes them, so one
// test holds the bytes themselves.
func TestCommandsAreTheJSONThatIsDocumented(t *testing.T) {
	got := CatalogCommand{DeleteTopic: &DeleteTopic{Name: "orders", ID: topicID(t, "7")}}.Encode()
	want := `{"version":1,"delete_topic":{"name":"orders","id":"00000000000000000000000000000007"}}`
	if string(got) != want || !json.Valid(got) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

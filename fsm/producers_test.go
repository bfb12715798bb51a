package fsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/trimaran-io/trimaran/kafkaproto"
)

// honest is a partition whose leaders change, as its proposers, its producers and
// one replica see it. Producers send anything again at any time, also what was
// acknowledged long ago and is delivered late.
type honest struct {
	t        *rapid.T
	machine  *PartitionState
	readTo   Offset   // of a reader that goes by GoodBatch
	inLog    []string // names of the batches, in order
	term     Term
	index    Index
	next     Offset // of the proposer
	ahead    ProducersAhead
	inFlight []Entry
	clock    int64
	clients  []*honestClient
}

type honestClient struct {
	id   int64
	sent []*honestBatch // all ever
	// acked counts those at the front of sent that were acknowledged: the producer
	// sends at most five beyond it.
	acked int
}

type honestBatch struct {
	name     string
	epoch    int
	sequence int
	records  int
	base     Offset // where it is in the log; -1: not there
	acked    bool
	waits    bool // in flight under the present leader
}

func (h *honest) bytes(c *honestClient, b *honestBatch) []byte {
	data := newBatch(0, b.records, 100, 0, 'x')
	copy(data[kafkaproto.BatchHeaderSize:], b.name)
	fillProducer(data, c.id, b.epoch, b.sequence, 0)
	return data
}

// create makes the next batch of a producer, sometimes of a new epoch.
func (h *honest) create(c *honestClient) {
	if len(c.sent)-c.acked >= ProducerBatches {
		return
	}
	b := &honestBatch{name: fmt.Sprintf("%d/%d.", c.id, len(c.sent)), records: rapid.IntRange(1, 4).Draw(h.t, "records"), base: -1}
	if n := len(c.sent); n > 0 {
		last := c.sent[n-1]
		b.epoch, b.sequence = last.epoch, (last.sequence+last.records)&math.MaxInt32
		if c.acked == n && rapid.IntRange(0, 9).Draw(h.t, "new epoch") == 0 {
			b.epoch, b.sequence = last.epoch+1, 0
		}
	} else if rapid.Bool().Draw(h.t, "near the end") {
		b.sequence = math.MaxInt32 - 3
	}
	c.sent = append(c.sent, b)
	h.send(c, b)
}

func (h *honest) send(c *honestClient, b *honestBatch) {
	if _, known := h.machine.Producer(c.id); !known && h.ahead.byID[c.id] == nil && b != c.sent[0] {
		// A producer of which nothing is known may begin anywhere, so that what comes
		// first must come first: the gateway sees to it for what a connection has in
		// flight when a leader goes.
		return
	}
	data := h.bytes(c, b)
	batch, err := kafkaproto.ParseBatch(data)
	if err != nil {
		h.t.Fatal(err)
	}
	v := h.ahead.Take(batch.Header(), h.next, Admission{}, h.machine)
	switch {
	case v.Err != nil:
		if b.base >= 0 && slices.Index(c.sent, b) >= len(c.sent)-ProducerBatches && b.epoch == c.sent[len(c.sent)-1].epoch {
			h.t.Fatalf("%s is among the last five of its epoch, in the log, and refused: %v", b.name, v.Err)
		}
	case v.Duplicate:
		if b.base != v.Original.Base {
			h.t.Fatalf("%s is said to be at %d and is at %d", b.name, v.Original.Base, b.base)
		}
		if !b.waits {
			h.ack(c, b)
		}
	default:
		if b.base >= 0 {
			h.t.Fatalf("%s is in the log at %d and gets a second place", b.name, b.base)
		}
		batch.Stamp(int64(h.next), int32(h.term.Epoch()))
		b.base, b.waits = h.next, true
		h.next += Offset(b.records)
		h.index++
		h.inFlight = append(h.inFlight, Entry{Index: h.index, Term: h.term, AppendedAt: h.clock, Data: data})
	}
}

func (h *honest) ack(c *honestClient, b *honestBatch) {
	b.acked = true
	for c.acked < len(c.sent) && c.sent[c.acked].acked {
		c.acked++
	}
}

// apply commits the first entry in flight.
func (h *honest) apply(leads bool) {
	if len(h.inFlight) == 0 {
		return
	}
	e := h.inFlight[0]
	h.inFlight = h.inFlight[1:]
	applied := h.machine.Apply(e)
	if applied.Err != nil || applied.Breach != nil {
		h.t.Fatalf("an honest entry: %v, %v", applied.Err, applied.Breach)
	}
	if h.readTo = read(e, h.readTo); h.readTo != h.machine.NextOffset() {
		h.t.Fatalf("a reader counts up to %d, the machine up to %d", h.readTo, h.machine.NextOffset())
	}
	name, _, _ := bytes.Cut(e.Data[kafkaproto.BatchHeaderSize:], []byte{'x'})
	h.inLog = append(h.inLog, string(name))
	c, b := h.find(e)
	if b.waits = false; leads {
		h.ahead.Applied(c.id)
		h.ack(c, b) // and if its answer is lost, it is sent again
	}
}

func (h *honest) find(e Entry) (*honestClient, *honestBatch) {
	for _, c := range h.clients {
		for _, b := range c.sent {
			if b.base == Offset(binary.BigEndian.Uint64(e.Data)) {
				return c, b
			}
		}
	}
	h.t.Fatal("an entry without a producer")
	return nil, nil
}

// elect has another leader: some of what was in flight is committed, the rest gone.
func (h *honest) elect() {
	survive := rapid.IntRange(0, len(h.inFlight)).Draw(h.t, "survive")
	lost := slices.Clone(h.inFlight[survive:])
	h.inFlight = h.inFlight[:survive]
	for len(h.inFlight) > 0 {
		h.apply(false)
	}
	for _, e := range lost {
		_, b := h.find(e)
		b.base, b.waits = -1, false
	}
	if rapid.Bool().Draw(h.t, "from a snapshot") {
		var err error
		if h.machine, err = RestorePartition(h.machine.Snapshot()); err != nil {
			h.t.Fatal(err)
		}
	}
	h.term++
	h.index += 2
	h.next, h.ahead = h.machine.NextOffset(), ProducersAhead{}
}

// Whatever producers send again and whenever leaders change: every batch is in the
// log once, in its producer's order, what is acknowledged is where it was said to
// be, and readers that know nothing of producers see the log that the machine sees.
func TestProducersThatSendAgainNeitherLoseNorDouble(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &honest{t: t, machine: NewPartition(), term: 1}
		for i := range rapid.IntRange(1, 3).Draw(t, "producers") {
			h.clients = append(h.clients, &honestClient{id: int64(i)})
		}
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			c := rapid.SampledFrom(h.clients).Draw(t, "producer")
			switch rapid.SampledFrom([]string{"create", "create", "again", "again", "apply", "apply", "elect"}).Draw(t, "step") {
			case "create":
				h.create(c)
			case "again":
				if len(c.sent) > 0 {
					h.send(c, rapid.SampledFrom(c.sent).Draw(t, "which"))
				}
			case "apply":
				h.apply(true)
			case "elect":
				h.elect()
			}
			h.clock += rapid.Int64Range(-5, 1000).Draw(t, "time")
		}
		// In the end every producer sends in order what it has no answer for.
		for _, c := range h.clients {
			for _, b := range c.sent[c.acked:] {
				h.send(c, b)
			}
		}
		for len(h.inFlight) > 0 {
			h.apply(true)
		}
		for _, c := range h.clients {
			at := -1
			for _, b := range c.sent {
				i := slices.Index(h.inLog, b.name)
				if i <= at || slices.Contains(h.inLog[i+1:], b.name) {
					t.Fatalf("%s stands at %d of %q, the one before it at %d", b.name, i, h.inLog, at)
				}
				at = i
			}
		}
	})
}

// Also when producers are forgotten between two of their batches, because of time
// or of their number, and their numbers are arbitrary, nothing gets into the log
// that Apply has to report.
func TestForgettingProducersIsNoBreach(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := NewPartition()
		var ahead ProducersAhead
		var inFlight []Entry
		next, now := Offset(0), int64(0)
		for i := range Index(rapid.IntRange(1, 200).Draw(t, "steps")) {
			b := newBatch(next, 1, 80, 1, 'x')
			fillProducer(b, rapid.Int64Range(0, 2).Draw(t, "producer"), rapid.IntRange(0, 2).Draw(t, "epoch"), rapid.IntRange(0, 6).Draw(t, "sequence"), 0)
			h, _ := kafkaproto.ParseBatchHeader(b)
			if v := ahead.Take(h, next, Admission{}, p); v.Err == nil && !v.Duplicate {
				next++
				now += rapid.SampledFrom([]int64{0, 1, ProducerExpiration / 3, ProducerExpiration, -ProducerExpiration}).Draw(t, "time")
				inFlight = append(inFlight, Entry{Index: i + 1, Term: 1, AppendedAt: now, Data: b})
			}
			for len(inFlight) > 0 && rapid.Bool().Draw(t, "apply") {
				if a := p.Apply(inFlight[0]); a.Err != nil || a.Breach != nil {
					t.Fatalf("%v, %v", a.Err, a.Breach)
				}
				h, _ := kafkaproto.ParseBatchHeader(inFlight[0].Data)
				ahead.Applied(h.ProducerID)
				inFlight = inFlight[1:]
			}
		}
	})
}

// The number of producers is bounded, and it is the one silent for longest that goes.
func TestProducersAreBounded(t *testing.T) {
	p := NewPartition()
	add := func(id int64, sequence int) {
		b := newBatch(p.next, 1, 80, 1, 'x')
		fillProducer(b, id, 0, sequence, 0)
		if a := p.Apply(Entry{Index: p.applied + 1, Term: 1, Data: b}); a.Err != nil || a.Breach != nil {
			t.Fatal(a.Err, a.Breach)
		}
	}
	for id := range int64(MaxProducers) {
		add(id, 0)
	}
	add(0, 1)
	add(MaxProducers, 0)
	if n := len(p.Producers()); n != MaxProducers {
		t.Errorf("%d producers", n)
	}
	if _, known := p.Producer(1); known {
		t.Error("the producer that was silent for longest is known")
	}
	if s, known := p.Producer(0); !known || s.LastSequence() != 1 {
		t.Error("a producer that appended lately is forgotten")
	}
	snapshot := p.Snapshot()
	if q, err := RestorePartition(snapshot); err != nil || !bytes.Equal(q.Snapshot(), snapshot) {
		t.Error(err)
	}
	if len(snapshot) > 32*MaxProducers {
		t.Errorf("a snapshot of %d bytes", len(snapshot))
	}
}

// A snapshot from before producers were remembered is that of a partition that
// knows none.
func TestSnapshotsWithoutProducersAreRead(t *testing.T) {
	p := samplePartition()
	v2 := p.Snapshot()
	p.producers = newProducerTable()
	none := p.Snapshot()
	v1 := seal(partitionMagic, 1, func(b []byte) []byte { return append(b, none[envelopeHead:len(none)-envelopeTail-1]...) })
	q, err := RestorePartition(v1)
	if err != nil || !bytes.Equal(q.Snapshot(), none) || bytes.Equal(none, v2) {
		t.Error(err)
	}
}

// What no table of producers can be is refused.
func TestImpossibleProducersAreNotRestored(t *testing.T) {
	for name, spoil := range map[string]func(*producerTable){
		"a batch beyond the end": func(p *producerTable) { p.idle.oldest.state.batches[0].Base = math.MaxInt64 },
		"one producer twice":     func(p *producerTable) { p.idle.newest.state.ID = p.idle.oldest.state.ID },
		"a negative id":          func(p *producerTable) { p.idle.newest.state.ID = -1 },
		"a negative sequence":    func(p *producerTable) { p.idle.newest.state.batches[0].Last = -1 },
	} {
		p := samplePartition()
		spoil(&p.producers)
		if _, err := RestorePartition(p.Snapshot()); !errors.Is(err, ErrSnapshot) {
			t.Errorf("%s: restored, %v", name, err)
		}
	}
}

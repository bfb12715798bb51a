package fsm

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/outcome"
)

// TestProducersAreAsKafkas does to a partition what was done to Kafka's ProducerStateManager, with
// batches and markers by chance, and compares what became of each, what is known of its producer,
// the last stable offset and how many producers are known. testdata/producers has what Kafka made
// of some seeds; TRIMARAN_PRODUCER_STATES names a folder with more
// (test/suites/oracle/producerstate makes them).
//
// Not compared, since it is another's affair or otherwise by design: a batch of a newer epoch
// within a transaction, which Kafka takes; markers that come again, which Kafka writes again;
// whether a transaction may begin, which its coordinator says.
func TestProducersAreAsKafkas(t *testing.T) {
	folder := "testdata/producers"
	if more := os.Getenv("TRIMARAN_PRODUCER_STATES"); more != "" {
		folder = more
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	steps := 0
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		var p *asKafka
		for lines := bufio.NewScanner(f); lines.Scan(); {
			step, want, recorded := strings.Cut(lines.Text(), " -> ")
			if !recorded { // seed N
				p = &asKafka{t: t, p: NewPartition()}
				continue
			}
			steps++
			if got := p.step(step); got != want {
				t.Errorf("%s, step %d: %s\nKafka %s\nhere  %s", name, p.steps, step, want, got)
				break
			}
		}
		f.Close()
	}
	if steps < 2000 {
		t.Errorf("%d steps are compared", steps)
	}
}

// asKafka is a partition with its proposer, one step at a time.
type asKafka struct {
	t     *testing.T
	p     *PartitionState
	ahead ProducersAhead
	steps int
}

// step does one, and tells what ProducerStates.java tells of it.
func (k *asKafka) step(text string) string {
	k.steps++
	var kind string
	var id, at int64
	var epoch int16
	var number, count int32
	var yes bool
	var err error
	if kind, _, _ = strings.Cut(text, " "); kind == "batch" {
		_, err = fmt.Sscanf(text, "batch %d %d %d %d %t %d", &id, &epoch, &number, &count, &yes, &at)
	} else {
		_, err = fmt.Sscanf(text, "marker %d %d %d %t %d", &id, &epoch, &number, &yes, &at)
	}
	if err != nil {
		k.t.Fatal(text, err)
	}
	// Kafka forgets in the background; here that is done with the next entry.
	k.p.producers.expire(at)
	next := k.p.next
	var data []byte
	var verdict Verdict
	if kind == "batch" {
		data = newBatch(next, int(count), 80, 1, 'x')
		if yes {
			data[22] |= 0x10 // transactional
		}
		fillProducer(data, id, int(epoch), int(number), at)
		h, _ := kafkaproto.ParseBatchHeader(data)
		admission := Admission{}
		if yes {
			admission.Guard = k.ahead.Guard(h, k.p)
		}
		verdict = k.ahead.Take(h, next, admission, k.p)
		if admission.Guard != nil {
			k.ahead.Release(admission.Guard)
			delete(k.ahead.guards, id) // the next one's coordinator is asked anew
		}
	} else {
		m := Marker{ProducerID: id, Epoch: epoch, Number: number, Commit: yes}
		_, verdict = k.ahead.TakeMarker(m, k.p)
		data = newMarker(next, 1, m)
	}
	became := fmt.Sprint("at ", next)
	switch {
	case verdict.Duplicate:
		became = fmt.Sprint("duplicate ", verdict.Original.Base)
	case outcome.Code(verdict.Err) == outcome.ErrInvalidProducerEpoch:
		became = "InvalidProducerEpochException"
	case outcome.Code(verdict.Err) == outcome.ErrOutOfOrderSequence:
		became = "OutOfOrderSequenceException"
	case outcome.Code(verdict.Err) == outcome.ErrInvalidTxnState:
		became = "InvalidTxnStateException"
	case verdict.Err != nil:
		became = verdict.Err.Error()
	default:
		before := len(k.p.aborted)
		if a := k.p.Apply(Entry{Index: k.p.applied + 1, Term: 1, AppendedAt: at, Data: data}); a.Err != nil || a.Breach != nil {
			k.t.Fatalf("step %d, %s: %v, %v", k.steps, text, a.Err, a.Breach)
		}
		k.ahead.Applied(id)
		if len(k.p.aborted) > before {
			a := k.p.aborted[before]
			became += fmt.Sprintf(" aborted %d %d %d", a.First, a.Last, a.LastStable)
		}
	}
	state := "unknown"
	if s, known := k.p.Producer(id); known {
		first := Offset(-1)
		if s.Open {
			first = s.First
		}
		var batches []string
		for _, b := range s.Batches() {
			batches = append(batches, fmt.Sprintf("%d-%d@%d", b.First, b.Last, b.Base))
		}
		state = fmt.Sprintf("%d %d %d [%s]", s.Epoch, s.LastSequence(), first, strings.Join(batches, ","))
	}
	return fmt.Sprintf("%s | %d %d | %s", became, k.p.LastStable(), len(k.p.producers.byID), state)
}

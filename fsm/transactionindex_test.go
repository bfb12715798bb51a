package fsm

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/trimaran-io/trimaran/kafkaproto"
	"github.com/trimaran-io/trimaran/kafkaproto/prototest"
)

// What is made of the entries of a segment alone, and of what the one in front is kept with, is
// what the state machine knows there, wherever segments end.
func TestATransactionIndexIsMadeOfTheLogAlone(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		machine := NewPartition()
		var made TransactionIndex
		start := Offset(0) // of the segment
		for index := Index(1); index <= 120; index++ {
			var data, extensions []byte
			epoch, restored := int32(Term(5).Epoch()), rnd.IntN(3) == 0
			if restored {
				epoch = int32(rnd.IntN(6))
			}
			for range 1 + rnd.IntN(3) {
				producer := int64(rnd.IntN(5))
				batch := prototest.Of(prototest.Batch("a", "b"), producer, 0, int32(index), rnd.IntN(4) > 0)
				switch rnd.IntN(6) {
				case 0, 1:
					batch = kafkaproto.NewMarker(kafkaproto.Marker{Commit: rnd.IntN(3) == 0, CoordinatorEpoch: int32(index)}, producer, 0, 1)
				case 2:
					batch = prototest.Batch("of no producer")
				}
				base := int64(machine.NextOffset())
				for old := range kafkaproto.Batches(data) {
					base = old.Header().NextOffset()
				}
				if rnd.IntN(10) == 0 {
					base += int64(1 - 2*rnd.IntN(2)) // void, or a hole
				}
				if restored && rnd.IntN(4) == 0 {
					var err error
					if batch, _, err = batch.Retain(func(kafkaproto.Record) bool { return false }); err != nil {
						t.Fatal(err)
					}
				}
				batch.Stamp(max(base, 0), epoch)
				if data = append(data, batch.Bytes()...); restored {
					extensions = marked(data)
				}
			}
			before := machine.NextOffset()
			machine.Apply(Entry{Index: index, Term: 5, AppendedAt: int64(index), Data: data, Extensions: extensions})
			if next := made.Add(data, StampOf(5, extensions), before); next != machine.NextOffset() {
				t.Fatalf("seed %d: the next offset is %d, not %d", seed, next, machine.NextOffset())
			}
			if stable := made.LastStable(machine.NextOffset()); stable != machine.LastStable() {
				t.Fatalf("seed %d: the last stable offset is %d, not %d", seed, stable, machine.LastStable())
			}
			if rnd.IntN(15) > 0 {
				continue
			}
			// The segment ends.
			known, end := machine.Transactions(), machine.NextOffset()
			kept := known.Within(start, end)
			if !bytes.Equal(made.Bytes(), kept.Bytes()) {
				t.Fatalf("seed %d: from %d to %d it made %+v, the state machine has %+v", seed, start, end, made, kept)
			}
			parsed, err := ParseTransactionIndex(made.Bytes())
			if err != nil || !bytes.Equal(parsed.Bytes(), made.Bytes()) {
				t.Fatalf("seed %d: %+v was read as %+v, %v", seed, made, parsed, err)
			}
			whole, err := ParseTransactionIndex(machine.Snapshot())
			if err != nil || !bytes.Equal(whole.Bytes(), known.Bytes()) {
				t.Fatalf("seed %d: a snapshot gives %+v, %v", seed, whole, err)
			}
			if rnd.IntN(2) == 0 {
				machine.DropAborted(end)
			}
			start, made = end, TransactionIndex{Open: parsed.Open}
		}
	}
}

func TestNothingIsKeptOfNothing(t *testing.T) {
	var x TransactionIndex
	if b := x.Bytes(); b != nil {
		t.Errorf("%x", b)
	}
	if x, err := ParseTransactionIndex(nil); err != nil || x.LastStable(7) != 7 {
		t.Errorf("%+v, %v", x, err)
	}
	if _, err := ParseTransactionIndex(NewPartition().Snapshot()); err != nil {
		t.Error(err)
	}
}

// Bytes from a disk claim no memory that they have no bytes for, and are read as they are written.
func FuzzTransactionIndex(f *testing.F) {
	x := TransactionIndex{
		Open:    []OpenTransaction{{ProducerID: 3, First: 5}, {ProducerID: 1, First: 9}},
		Aborted: []AbortedTransaction{{ProducerID: 1, First: 2, Last: 4, LastStable: 3}},
	}
	f.Add(x.Bytes()[envelopeHead : len(x.Bytes())-envelopeTail])
	f.Add([]byte{0, 255, 255, 255, 255, 15})
	f.Add([]byte{2, 1, 5, 1, 6, 0})
	f.Fuzz(func(t *testing.T, payload []byte) {
		x, err := ParseTransactionIndex(seal(transactionIndexMagic, 1, func(b []byte) []byte { return append(b, payload...) }))
		if err != nil {
			if !errors.Is(err, ErrSnapshot) {
				t.Fatal(err)
			}
			return
		}
		again, err := ParseTransactionIndex(x.Bytes())
		if err != nil || !bytes.Equal(again.Bytes(), x.Bytes()) {
			t.Fatalf("%+v is read again as %+v, %v", x, again, err)
		}
	})
}

// An answer has a bound, also where many transactions reach over what is read.
func TestAbortedTransactionsOfASliceAreBounded(t *testing.T) {
	var batches []byte
	var rows []AbortedTransaction
	for i := range int64(10) {
		batches = append(batches, newTransactional(Offset(i), 1, 1, i, 0, 0)...)
		rows = append(rows, AbortedTransaction{ProducerID: i, First: Offset(i), Last: Offset(100 + i)})
	}
	one := len(batches) / 10
	for most, want := range map[int]int{0: 1, 1: 1, 4: 4, 9: 9, 10: 10, 11: 10} {
		slice := Slice{Batches: batches, Aborted: rows}
		slice.BoundAborted(most)
		if len(slice.Batches) != want*one || len(slice.Aborted) != want {
			t.Errorf("at most %d: %d batches, %d rows, want %d", most, len(slice.Batches)/one, len(slice.Aborted), want)
		}
	}
	// All of these reach over the first batch, and the reader has to know them.
	for i := range rows {
		rows[i].First = 0
	}
	slice := Slice{Batches: batches, Aborted: rows}
	if slice.BoundAborted(3); len(slice.Batches) != one || len(slice.Aborted) != 10 {
		t.Errorf("%d batches, %d rows", len(slice.Batches)/one, len(slice.Aborted))
	}
}

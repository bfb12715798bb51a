package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/cluster/raftlog/vfs"
	"github.com/trimaran-io/trimaran/cluster/tier"
	"github.com/trimaran-io/trimaran/fsm"
)

// heapStore is a store of a tier in memory. One goroutine may use it at a time.
type heapStore map[string][]byte

func (s heapStore) String() string { return "memory" }

func (s heapStore) Put(_ context.Context, key string, data []byte) error {
	s[key] = bytes.Clone(data)
	return nil
}

func (s heapStore) Get(_ context.Context, key string, _ int64) ([]byte, error) {
	data, ok := s[key]
	if !ok {
		return nil, tier.ErrNotFound
	}
	return data, nil
}

func (s heapStore) Size(ctx context.Context, key string) (int64, error) {
	data, err := s.Get(ctx, key, 0)
	return int64(len(data)), err
}

func (s heapStore) List(_ context.Context, prefix string, each func(string) error) error {
	for key := range s {
		if err := each(key); strings.HasPrefix(key, prefix) && err != nil {
			return err
		}
	}
	return nil
}

func (s heapStore) Delete(_ context.Context, key string) error {
	delete(s, key)
	return nil
}

// lettingGo is a partition whose tier and housekeeping the test looks after.
type lettingGo struct {
	*txnWriter
	*Records
	p     *proposer
	store heapStore
}

func newLettingGo(t *testing.T) *lettingGo {
	t.Helper()
	s := newTestSet(t, nil)
	l := &lettingGo{store: heapStore{}}
	var err error
	s.env.Tier, err = tier.Open(t.Context(), tier.Config{Store: l.store, ClusterID: func() string { return "c" }, FS: vfs.NewMem(), Dir: "cache"})
	if err != nil {
		t.Fatal(err)
	}
	r := s.led(s.topic("a", map[string]string{"segment.bytes": "1000"}))
	l.Records = r
	l.txnWriter = &txnWriter{txnModel: newTxnModel(), t: t, rnd: rand.New(rand.NewPCG(1, 1)), r: func() *Records { return r }}
	if l.p, err = r.proposing(); err != nil {
		t.Fatal(err)
	}
	for len(r.Log.Segments()) < 5 {
		l.write(noProducer)
	}
	return l
}

// decide has the group agree on a command, and takes a snapshot that has it.
func (l *lettingGo) decide(command []byte) {
	l.t.Helper()
	if err := l.p.control(within(l.t), command); err != nil {
		l.t.Fatal(err)
	}
	l.keep()
}

// keep does the housekeeping, until there is nothing to do.
func (l *lettingGo) keep() {
	l.t.Helper()
	eventually(l.t, "the housekeeping is done", func() error {
		if !l.housekeep() {
			return errors.New("there was something to do")
		}
		return nil
	})
}

// tierTo brings what is below an offset to the tier.
func (l *lettingGo) tierTo(end fsm.Offset) {
	l.t.Helper()
	u, err := l.env.Tier.Begin(within(l.t), l.ID, 0, l.p.term)
	if err != nil {
		l.t.Fatal(err)
	}
	segment, err := l.fill(within(l.t), u, 0, end, 0, false)
	if err != nil {
		l.t.Fatal(err)
	}
	l.decide(fsm.TierAddCommand(segment, 0))
}

// begins holds where the log here begins against where it should.
func (l *lettingGo) begins(what string, want fsm.Offset) {
	l.t.Helper()
	l.keep()
	if from := fsm.Offset(l.Log.Segments()[0].Start); from != want {
		l.t.Errorf("%s the log begins at %d, want %d", what, from, want)
	}
}

// TestALookReachesNoFurtherThanWhatCanGo: what replicas have to keep yet, of a segment that was
// seen, is looked for when they need not.
func TestALookReachesNoFurtherThanWhatCanGo(t *testing.T) {
	t.Parallel()
	l := newLettingGo(t)
	segments := l.Log.Segments()
	first, all := fsm.Offset(segments[2].Start), fsm.Offset(segments[4].Start)
	l.tierTo(all)
	l.decide(fsm.TierLocalCommand(first))
	l.begins("without a look", 0)
	l.look(t.Context())
	if why := l.Unseen(); why != "" || l.letGo.found != first {
		t.Errorf("it was seen up to %d, want %d: %s", l.letGo.found, first, why)
	}
	l.begins("after a look", first)

	// What is there is another by the time that the rest can go.
	clear(l.store)
	l.decide(fsm.TierLocalCommand(all))
	l.begins("without another look", first)
	l.look(t.Context())
	l.begins("after a look in vain", first)
	if why := l.Unseen(); !strings.Contains(why, fmt.Sprintf("this replica has offsets from %d on", first)) || !strings.Contains(why, "--tier-to") {
		t.Error(why)
	}
}

// TestASegmentWithoutRecordsIsLetGoOf: after a restart nobody has looked yet, and there is nothing
// to look for.
func TestASegmentWithoutRecordsIsLetGoOf(t *testing.T) {
	t.Parallel()
	l := newLettingGo(t)
	end := fsm.Offset(l.next)
	decided := fsm.CompactCommand(fsm.Compaction{Algorithm: fsm.CompactionAlgorithm, Bound: end}, 0)
	l.decide(decided) // it begins a segment, without records
	l.tierTo(end)
	l.decide(fsm.TierLocalCommand(end))
	l.look(t.Context())
	l.begins("after a look", end)
	l.decide(decided)
	n := len(l.Log.Segments())
	l.letGo = letGo{}
	l.decide(decided)
	if all := l.Log.Segments(); n != 1 || len(all) != 2 || all[1].Start != int64(end) {
		t.Fatalf("%d, %+v", n, all)
	}
	l.look(t.Context())
	if l.keep(); len(l.Log.Segments()) != 1 {
		t.Errorf("%+v", l.Log.Segments())
	}
}

// TestTheEndsOfATierAreLookedAt: where there is nothing to let go of, once and then every hour.
func TestTheEndsOfATierAreLookedAt(t *testing.T) {
	t.Parallel()
	l := newLettingGo(t)
	if l.look(t.Context()); l.ends() != nil || l.Unseen() != "" {
		t.Errorf("%+v: %s", l.ends(), l.Unseen())
	}
	l.tierTo(fsm.Offset(l.Log.Segments()[2].Start))
	if n := len(l.ends()); n != 1 {
		t.Fatalf("%d segments are to be looked at", n)
	}
	l.look(t.Context())
	if why := l.Unseen(); why != "" || l.ends() != nil {
		t.Errorf("%+v: %s", l.ends(), why)
	}
	clear(l.store)
	l.look(t.Context())
	if why := l.Unseen(); why != "" {
		t.Errorf("within the hour it was looked: %s", why)
	}
	l.letGo.ends = l.letGo.ends.Add(-endsEvery)
	l.look(t.Context())
	if why := l.Unseen(); !strings.Contains(why, "--tier-to") || l.letGo.until.Before(time.Now()) {
		t.Errorf("until %s: %s", l.letGo.until, why)
	}
	l.env.Tier = nil
	l.look(t.Context())
	if why := l.Unseen(); why != errNoStore.Error() {
		t.Error(why)
	}
	// When the tier is ended nothing is missing any more.
	l.decide(fsm.TierEndCommand())
	if why := l.Unseen(); why != "" {
		t.Error(why)
	}
}

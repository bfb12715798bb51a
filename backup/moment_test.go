package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/fsm"
)

// What comes while records are read is not in the backup: it ends where it was looked at, in all
// partitions and groups alike. Commits are let go before records are read.
func TestABackupEndsAtOneMoment(t *testing.T) {
	c := newMemCluster("one")
	for i, partitions := range []int{2, 1} {
		id := c.topic(fmt.Sprint("topic-", i), byte(5+i), partitions)
		for p := range partitions {
			c.add(id, p, 4+i, 100)
		}
	}
	var holds []string
	c.hold = func() (func(context.Context) (bool, error), error) {
		holds = append(holds, "held")
		return func(context.Context) (bool, error) {
			holds = append(holds, "let go")
			return true, nil
		}, nil
	}
	want := map[fsm.TopicID][]int64{}
	for id, logs := range c.logs {
		for _, l := range logs {
			want[id] = append(want[id], l.next)
		}
	}
	c.changed = func(_ string, id fsm.TopicID, part int) {
		if !slices.Equal(holds, []string{"held", "let go"}) {
			t.Errorf("it is read after %v", holds)
		}
		c.changed = nil // what is added is read, too
		for id, logs := range c.logs {
			for p := range logs {
				c.add(id, p, 3, 100)
			}
		}
	}
	made := create(t, c, &Repository{Store: newMemStore()}, Options{})
	if !made.Manifest.Whole || made.Manifest.Torn != "" {
		t.Errorf("torn: %q", made.Manifest.Torn)
	}
	for _, topic := range made.Manifest.Topics {
		for p, end := range want[topic.ID] {
			if topic.Partitions[p].End != end {
				t.Errorf("%s, partition %d: it ends at %d, want %d", topic.Name, p, topic.Partitions[p].End, end)
			}
		}
	}
}

// Holding is tried again, and where it is in vain the backup is made and says so.
func TestCommitsThatCannotBeHeld(t *testing.T) {
	for _, test := range []struct {
		name  string
		hold  func(try int) (func(context.Context) (bool, error), error)
		torn  string // in Created.Torn; "": it is whole
		tries int
		// level is the cluster's; 0: the newest. Programs of before LevelHolds take a manifest that
		// says Torn for damaged, so there it does not.
		level int
	}{
		{"the third time", func(try int) (func(context.Context) (bool, error), error) {
			if try == 1 {
				return nil, errors.New("a marker is on its way")
			}
			return func(context.Context) (bool, error) { return try == 3, nil }, nil
		}, "", 3, 0},
		{"never", func(int) (func(context.Context) (bool, error), error) {
			return nil, fmt.Errorf("%w: older nodes", ErrNeverHeld)
		}, "older nodes", 1, 0},
		{"always in vain", func(int) (func(context.Context) (bool, error), error) {
			return func(context.Context) (bool, error) { return false, nil }, nil
		}, "not held for long enough", momentTries, 0},
		{"nobody knows", func(int) (func(context.Context) (bool, error), error) {
			return func(context.Context) (bool, error) { return true, errors.New("the coordinator is gone") }, nil
		}, "the coordinator is gone", momentTries, 0},
		{"a long reason", func(int) (func(context.Context) (bool, error), error) {
			return nil, errors.New(strings.Repeat("\xff", 10_000))
		}, "\ufffd", momentTries, 0},
		{"in vain, at the first level", func(int) (func(context.Context) (bool, error), error) {
			return func(context.Context) (bool, error) { return false, nil }, nil
		}, "not held for long enough", momentTries, fsm.LevelHolds},
		{"in vain, at a level of before", func(int) (func(context.Context) (bool, error), error) {
			return func(context.Context) (bool, error) { return false, nil }, nil
		}, "not held for long enough", momentTries, fsm.LevelHolds - 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, tries := sample(), 0
			if test.level > 0 {
				c.copy.FeatureLevel = test.level
			}
			c.hold = func() (func(context.Context) (bool, error), error) { tries++; return test.hold(tries) }
			r := &Repository{Store: newMemStore()}
			made := create(t, c, r, Options{})
			m, err := r.Newest(t.Context(), time.Time{})
			if err != nil {
				t.Fatal(test.name, err)
			}
			torn := test.torn
			if test.name == "never" || c.copy.FeatureLevel < fsm.LevelHolds {
				torn = ""
				if m.Torn != "" {
					t.Errorf("%s: %q is in the manifest", test.name, m.Torn)
				}
			}
			if !strings.Contains(strings.ToValidUTF8(made.Torn, "\ufffd"), test.torn) {
				t.Errorf("%s: torn %q", test.name, made.Torn)
			}
			if m.Whole != (test.torn == "") || !strings.Contains(m.Torn, torn) || tries != test.tries {
				t.Errorf("%s: whole %v, torn %q, after %d tries", test.name, m.Whole, m.Torn, tries)
			}
			sameAs(t, m, r, c)
		})
	}
}

// A log that is shorter than it was, or went on without a majority, is not cut somewhere.
func TestALogThatIsRecoveredWhileItIsBackedUp(t *testing.T) {
	for name, change := range map[string]func(l *memLog){
		"shorter":   func(l *memLog) { l.next-- },
		"recovered": func(l *memLog) { l.epoch += fsm.RecoveryGap },
	} {
		c := sample()
		c.hold = func() (func(context.Context) (bool, error), error) {
			return func(context.Context) (bool, error) {
				change(c.logs[fsm.TopicID{1}][0])
				return true, nil
			}, nil
		}
		if _, err := Create(t.Context(), c, &Repository{Store: newMemStore()}, Options{}); err == nil || !strings.Contains(err.Error(), "without a majority") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A topic that is deleted and created again while others are read is left out: bounds are asked for
// by name, and the log that has it now is shorter.
func TestATopicThatIsCreatedAgainIsLeftOut(t *testing.T) {
	c := sample()
	name := ""
	c.hold = func() (func(context.Context) (bool, error), error) {
		return func(context.Context) (bool, error) {
			at := slices.IndexFunc(c.copy.Topics, func(topic admin.TopicCopy) bool { return topic.ID == fsm.TopicID{1} })
			name = c.copy.Topics[at].Name
			c.copy.Topics = slices.Delete(slices.Clone(c.copy.Topics), at, at+1)
			c.logs[fsm.TopicID{1}][0].next-- // of the new one
			return true, nil
		}, nil
	}
	made := create(t, c, &Repository{Store: newMemStore()}, Options{})
	if !slices.Contains(made.Skipped, name) || made.Manifest.topic(fsm.TopicID{1}) != nil {
		t.Errorf("%s is in it; left out: %v", name, made.Skipped)
	}
}

// A compacted topic is read before it is looked where it ends: what compaction takes since, for
// what comes behind that, is in the backup.
func TestACompactedTopicIsReadEarly(t *testing.T) {
	c := newMemCluster("one")
	id, r := c.topic("compacted", 5, 1), &Repository{Store: newMemStore()}
	c.copy.Topics[0].Compacted, c.copy.Topics[0].DeleteRetentionMs = true, 3_600_000
	c.add(id, 0, 4, 100)
	log := c.logs[id][0]
	all := slices.Clone(log.batches)
	c.hold = func() (func(context.Context) (bool, error), error) {
		return func(context.Context) (bool, error) {
			c.add(id, 0, 2, 100)
			log.batches = log.batches[3:]
			return true, nil
		}, nil
	}
	made := create(t, c, r, Options{})
	c.hold = nil
	p := made.Manifest.topic(id).Partitions[0]
	var bytes int64
	for _, b := range all {
		bytes += int64(b.Size())
	}
	if p.End != all[3].Header().NextOffset() || p.bytes() != bytes {
		t.Errorf("%+v, want %d bytes", p, bytes)
	}
}

// What comes to a compacted topic while it is looked at everywhere may be compacted for something
// later still: that is in the backup, and it says so. A cluster that does not know the epoch of a
// log does not say that transactions are whole, either.
func TestWhatIsNotWholeIsSaid(t *testing.T) {
	for name, test := range map[string]struct {
		compacts bool
		epoch    int32
		torn     string
	}{
		"whole":      {false, 3, ""},
		"compacted":  {true, 3, "partition 0 of compacted was compacted"},
		"no epoch":   {false, -1, "leader epoch"},
		"lost epoch": {false, 9, "leader epoch"},
	} {
		c := newMemCluster("one")
		id, r := c.topic("compacted", 5, 1), &Repository{Store: newMemStore()}
		c.copy.Topics[0].Compacted, c.copy.Topics[0].DeleteRetentionMs = true, 3_600_000
		c.add(id, 0, 4, 100)
		log := c.logs[id][0]
		log.epoch = 3
		looked := false
		c.hold = func() (func(context.Context) (bool, error), error) {
			looked = true
			c.add(id, 0, 3, 100)
			log.epoch = test.epoch
			return func(context.Context) (bool, error) {
				log.epoch = 3
				if test.compacts {
					// The last record but one gives way to one that comes now.
					log.batches = append(slices.Clone(log.batches[:5]), log.batches[6:]...)
					c.add(id, 0, 1, 100)
				}
				return true, nil
			}, nil
		}
		m := create(t, c, r, Options{}).Manifest
		if m.Whole != (test.torn == "") || !strings.Contains(m.Torn, test.torn) || !looked {
			t.Errorf("%s: whole %v, torn %q", name, m.Whole, m.Torn)
		}
		if p := m.topic(id).Partitions[0]; p.End != log.next {
			t.Errorf("%s: it ends at %d, want %d", name, p.End, log.next)
		}
	}
}

// A backup without records has nobody wait, and says nothing of transactions.
func TestABackupWithoutRecordsHoldsNothing(t *testing.T) {
	c, r := sample(), &Repository{Store: newMemStore()}
	create(t, c, r, Options{})
	c.hold = func() (func(context.Context) (bool, error), error) {
		t.Error("commits are held")
		return nil, ErrNeverHeld
	}
	if m := create(t, c, r, Options{CatalogOnly: true}).Manifest; m.Whole || m.Torn != "" {
		t.Errorf("whole %v, torn %q", m.Whole, m.Torn)
	}
}

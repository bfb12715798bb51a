package lostquorum

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/fsm"
)

var topicID = fsm.TopicID{15: 7}

// identity gives that of node i of n1, n2…
func identity(i int) string { return fmt.Sprintf("n%d.0000000%d", i, i) }

// members gives a configuration; those with a minus have no vote.
func members(nodes ...int) (out []Server) {
	for _, i := range nodes {
		out = append(out, Server{Identity: identity(max(i, -i)), Votes: i > 0})
	}
	return out
}

// world is a cluster of some nodes with one partition, held by all.
type world struct {
	nodes   int
	catalog map[int]Log
	logs    map[int]Log
}

func (w world) survey(i int) *Survey {
	s := &Survey{Format: Format, Identity: identity(i), ClusterID: "c", Catalog: w.catalog[i], Logs: map[string]Log{}}
	topic := Topic{Name: "events", ID: topicID, Holders: [][]fsm.NodeID{nil}}
	for n := range w.nodes {
		node := fsm.Node{ID: fsm.NodeID(fmt.Sprint("n", n+1)), Incarnation: fmt.Sprintf("0000000%d", n+1)}
		s.Nodes = append(s.Nodes, node)
		topic.Holders[0] = append(topic.Holders[0], node.ID)
	}
	s.Topics = []Topic{topic}
	if log, ok := w.logs[i]; ok {
		s.Logs[fsm.PartitionID{Topic: topicID}.String()] = log
	}
	return s
}

func (w world) decide(lost []string, survivors ...int) (*Plan, error) {
	var surveys []*Survey
	for _, i := range survivors {
		surveys = append(surveys, w.survey(i))
	}
	return Decide(surveys, lost)
}

func TestAGroupGoesOnWithTheNewestLogThatIsLeft(t *testing.T) {
	three, five := members(1, 2, 3), members(1, 2, 3, 4, 5)
	lost := []string{"n3", "n4", "n5"}
	for name, test := range map[string]struct {
		logs    map[int]Log
		fate    Fate
		member  int // with whose log it goes on
		term    uint64
		servers []Server
		missing int64
	}{
		"a higher term beats a longer log": {
			map[int]Log{1: {Index: 90, Term: 3, Next: 80, Voted: 9, Servers: five}, 2: {Index: 40, Term: 4, Next: 35, Voted: 4, Servers: five}},
			Recovered, 2, 9 + TermGap, members(2, 1), 35,
		},
		"of one term the longer": {
			map[int]Log{1: {Index: 90, Term: 3, Next: 80, Voted: 3, Servers: five}, 2: {Index: 91, Term: 3, Next: 81, Voted: 3, Servers: five}},
			Recovered, 2, 3 + TermGap, members(2, 1), 81,
		},
		"one that cannot be read does not count": {
			map[int]Log{1: {Problem: "damaged"}, 2: {Index: 4, Term: 3, Next: 2, Voted: 3, Servers: five}},
			Recovered, 2, 3 + TermGap, members(2), 2,
		},
		"one that had no vote": {
			map[int]Log{2: {Index: 4, Term: 3, Next: 2, Voted: 3, Servers: members(3, 4, 5, -2)}},
			Recovered, 2, 3 + TermGap, members(2), 2,
		},
		"nobody has anything": {map[int]Log{1: {Servers: nil}}, Gone, 0, 0, nil, 0},
		"nobody can read anything": {
			map[int]Log{1: {Problem: "damaged"}, 2: {Problem: "lost"}}, Gone, 0, 0, nil, 0,
		},
		"one that missed that the newest has come": {
			map[int]Log{1: {Index: 9, Term: 3, Next: 7, Voted: 3, Servers: five}, 2: {Index: 3, Term: 3, Voted: 3, Servers: members(2, 3, 4, 5)}},
			Recovered, 1, 3 + TermGap, members(1, 2), 7,
		},
		"one that has let go of what it had": {
			map[int]Log{1: {Index: 9, Term: 3, Next: 7, Voted: 3, Servers: five}, 2: {Voted: 3}},
			Recovered, 1, 3 + TermGap, members(1, -2), 7,
		},
		"a majority is there, and would elect nobody": {
			map[int]Log{1: {Index: 9, Term: 3, Next: 7, Voted: 3, Servers: three}, 2: {Voted: 5}},
			Recovered, 1, 5 + TermGap, members(1, -2), 7,
		},
		"a majority is there": {
			map[int]Log{1: {Index: 4, Term: 3, Servers: three}, 2: {Index: 3, Term: 3, Servers: three}}, Kept, 0, 0, nil, 0,
		},
		"a majority of the newest members is there": {
			map[int]Log{1: {Index: 9, Term: 3, Servers: three}, 2: {Index: 3, Term: 3, Servers: five}}, Kept, 0, 0, nil, 0,
		},
		"a majority of what only the older log says, which nobody would elect": {
			map[int]Log{1: {Index: 9, Term: 3, Next: 9, Servers: five}, 2: {Index: 3, Term: 3, Next: 3, Servers: three}},
			Recovered, 1, 3 + TermGap, members(1, 2), 9,
		},
	} {
		w := world{nodes: 5, logs: test.logs, catalog: map[int]Log{
			1: {Index: 5, Term: 1, Voted: 1, Servers: five}, 2: {Index: 5, Term: 1, Voted: 1, Servers: five},
		}}
		p, err := w.decide(lost, 1, 2)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		g := p.Groups[1]
		want := Group{Name: g.Name, Topic: "events", Fate: test.fate}
		if test.fate == Recovered {
			want.Member, want.NewTerm, want.Servers, want.MissingFrom = identity(test.member), test.term, test.servers, test.missing
		}
		if test.fate == Gone {
			want.Held = []fsm.NodeID{"n3", "n4", "n5"}
		}
		g.Index, g.Term, g.Unusable = 0, 0, nil
		if !reflect.DeepEqual(g, want) {
			t.Errorf("%s: %+v, want %+v", name, g, want)
		}
		if !slices.Equal(p.Lost, []string{identity(3), identity(4), identity(5)}) {
			t.Errorf("%s: lost are %q", name, p.Lost)
		}
	}
}

// All survivors come to the same, in whatever order they are told of each other, whether they have
// a survey from its file or from the node, and if one has looked for the others in vain since.
func TestAllSurvivorsDecideAlike(t *testing.T) {
	five := members(1, 2, 3, 4, 5)
	w := world{nodes: 5,
		catalog: map[int]Log{1: {Index: 5, Term: 1, Servers: five}, 2: {Index: 6, Term: 1, Servers: five}},
		logs:    map[int]Log{1: {Index: 5, Term: 1, Servers: five}, 2: {Index: 5, Term: 1, Servers: five}},
	}
	a, err := w.decide([]string{"n3", "n5", "n4"}, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	b, err := w.decide([]string{identity(4), "n3", "n5", "n5"}, 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%+v\n%+v", a, b)
	}
	w.catalog[2], w.logs[1] = Log{Index: 6, Term: 1, Voted: 9, Servers: five}, Log{Index: 5, Term: 1, Voted: 7, Servers: five}
	started, written := w.survey(1), new(bytes.Buffer)
	if err := json.NewEncoder(written).Encode(w.survey(2)); err != nil {
		t.Fatal(err)
	}
	read, err := ReadSurvey(written)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Decide([]*Survey{started, read}, []string{"n3", "n4", "n5"})
	if err != nil || !bytes.Equal(c.Decided, a.Decided) || c.Groups[0].NewTerm != 9+TermGap || c.Groups[1].NewTerm != 7+TermGap {
		t.Errorf("of other terms: %+v, %v", c, err)
	}
	if grown := w.survey(1); !started.Same(w.survey(1)) || started.Same(read) {
		t.Errorf("%+v is not of the same files, or %+v is", grown, read)
	}
	w.logs[1] = Log{Index: 6, Term: 1, Voted: 7, Servers: five}
	if started.Same(w.survey(1)) {
		t.Error("a log has grown, and the surveys are of the same files")
	}
	other, err := w.decide([]string{"n2", "n3", "n4", "n5"}, 1)
	if err != nil || bytes.Equal(other.Decided, a.Decided) {
		t.Errorf("who was told something else decided by the same: %v", err)
	}
}

func TestWhatIsNotAsItShouldBeIsRefused(t *testing.T) {
	three := members(1, 2, 3)
	w := world{nodes: 3, catalog: map[int]Log{}, logs: map[int]Log{}}
	for i := 1; i <= 3; i++ {
		w.catalog[i] = Log{Index: 5, Term: 1, Servers: three}
		w.logs[i] = Log{Index: 5, Term: 1, Servers: three}
	}
	for name, test := range map[string]struct {
		lost      []string
		survivors []int
		want      string
	}{
		"nothing is lost":           {nil, []int{1, 2, 3}, ErrMajority.Error()},
		"one of three":              {[]string{"n3"}, []int{1, 2}, ErrMajority.Error()},
		"one is not spoken of":      {[]string{"n3"}, []int{1}, "node n2 is neither named as lost"},
		"nobody of that name":       {[]string{"n2", "n4"}, []int{1}, `no node is named "n4": the catalog has n1, n2, n3`},
		"of another incarnation":    {[]string{"n2.ffffffff", "n3"}, []int{1}, "no node is named"},
		"lost and there":            {[]string{"n1", "n2", "n3"}, []int{1}, "there is a survey of it"},
		"twice":                     {[]string{"n2", "n3"}, []int{1, 1}, "two surveys"},
		"no node of the cluster":    {[]string{"n2", "n3"}, []int{1, 4}, "is no node of the cluster"},
		"no catalog that is usable": {[]string{"n1", "n2", "n3"}, nil, "no survivor has a catalog"},
	} {
		if _, err := w.decide(test.lost, test.survivors...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	other := w.survey(2)
	other.ClusterID = "d"
	if _, err := Decide([]*Survey{w.survey(1), other}, []string{"n3"}); err == nil || !strings.Contains(err.Error(), "of cluster d") {
		t.Errorf("two clusters: %v", err)
	}
	bare := w
	bare.logs = nil
	if _, err := bare.decide([]string{"n3"}, 1, 2); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "anything of events-0, and every other") {
		t.Errorf("nothing would go on: %v", err)
	}
	late := w
	late.logs = map[int]Log{1: {Index: 5, Term: 1<<31 - 9, Servers: three}}
	if _, err := late.decide([]string{"n2", "n3"}, 1); err == nil || !strings.Contains(err.Error(), "no term is left") {
		t.Errorf("in the last terms: %v", err)
	}
	// What was lost in an earlier recovery need not be named again.
	again := w.survey(1)
	again.Lost = []string{identity(2), "n9.00000009"}
	if p, err := Decide([]*Survey{again}, []string{"n3"}); err != nil || len(p.Lost) != 3 {
		t.Errorf("a second recovery: %+v, %v", p, err)
	}
}

func TestReadSurvey(t *testing.T) {
	w := world{nodes: 1, catalog: map[int]Log{1: {Index: 1, Term: 1}}}
	good, err := json.Marshal(w.survey(1))
	if err != nil {
		t.Fatal(err)
	}
	s, err := ReadSurvey(bytes.NewReader(good))
	if err != nil || !reflect.DeepEqual(s, w.survey(1)) {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"", "{}", "[]", `{"format":2}`, `{"format":1}`, string(good[:len(good)-1])} {
		if s, err := ReadSurvey(strings.NewReader(bad)); err == nil {
			t.Errorf("%.40q is taken for %+v", bad, s)
		}
	}
}

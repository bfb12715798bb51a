package election

import (
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trimaran-io/trimaran/cluster/link/wire"
)

func anyBeacon(t *rapid.T) beacon {
	name := rapid.StringN(0, 20, wire.MaxName)
	s := beacon{
		echoBoot: rapid.Uint64().Draw(t, "boot"), echoSeq: rapid.Uint64().Draw(t, "seq"),
		suspects: rapid.SliceOfN(name, 0, 4).Draw(t, "suspects"), withdrawn: rapid.SliceOfN(name, 0, 4).Draw(t, "withdrawn"),
	}
	for range rapid.IntRange(0, 4).Draw(t, "claims") {
		s.claims = append(s.claims, namedClaim{name.Draw(t, "group"), claim{rapid.Byte().Draw(t, "kind"), rapid.Uint64().Draw(t, "term"), rapid.Uint64().Draw(t, "instance")}})
	}
	return s
}

func TestBeaconsSurviveTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := anyBeacon(t)
		got, err := decodeBeacon(append(s.encode(), "of a later version"...))
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range []*[]string{&s.suspects, &s.withdrawn} {
			if len(*list) == 0 {
				*list = nil
			}
		}
		if !reflect.DeepEqual(got, s) {
			t.Fatalf("%+v, want %+v", got, s)
		}
	})
}

func FuzzBeacon(f *testing.F) {
	f.Add((&beacon{echoBoot: 1, echoSeq: 2, suspects: []string{"n1.0000abcd"}, withdrawn: []string{"g"}, claims: []namedClaim{{"h", claim{claimLeads, 3, 4}}}}).encode())
	f.Add([]byte{beaconLayout, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeBeacon(b)
		if err != nil {
			return
		}
		again, err := decodeBeacon(s.encode())
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("%+v became %+v, %v", s, again, err)
		}
	})
}

// TestAHeartbeatIsConfirmedOnlyByALaterBeacon holds rule 1 at the place where it is decided.
func TestAHeartbeatIsConfirmedOnlyByALaterBeacon(t *testing.T) {
	const group, term = "g", 7
	follows := []namedClaim{{group, claim{claimFollows, term, 1}}}
	begin := func(t *testing.T) (*nodes, *heardBeacons, *process, *confirmation) {
		s := &nodes{boot: 3, now: func() int64 { return int64(time.Hour) }, fresh: int64(300 * time.Millisecond), byName: map[string]*node{}}
		h := &s.named("b").beacons
		in := &process{boot: 5}
		h.reset(in)
		h.sent = 10
		if _, err := h.take(in, 1, &beacon{echoBoot: s.boot, echoSeq: 10, claims: follows}, s.boot, s.now()); err != nil {
			t.Fatal(err)
		}
		w := s.expect("b", group, term)
		if w == nil {
			t.Fatal("a follower that says so is not waited for")
		}
		h.sent = 12
		return s, h, in, w
	}
	answered := func(w *confirmation) string {
		select {
		case yes := <-w.got:
			if yes {
				return "yes"
			}
			return "no"
		default:
			return "waits"
		}
	}
	for name, c := range map[string]struct {
		s    beacon
		boot bool // the echo is of this process
		want string
	}{
		"echoes what was sent before":            {beacon{echoSeq: 10}, true, "waits"},
		"echoes what was sent after":             {beacon{echoSeq: 11}, true, "yes"},
		"echoes another process":                 {beacon{echoSeq: 11}, false, "waits"},
		"echoes what was never sent":             {beacon{echoSeq: 13}, true, "waits"},
		"follows no longer":                      {beacon{echoSeq: 11, withdrawn: []string{group}}, true, "no"},
		"follows in another term":                {beacon{echoSeq: 11, claims: []namedClaim{{group, claim{claimFollows, term + 1, 1}}}}, true, "no"},
		"leads itself":                           {beacon{echoSeq: 11, claims: []namedClaim{{group, claim{claimLeads, term, 1}}}}, true, "no"},
		"withdraws another group":                {beacon{echoSeq: 12, withdrawn: []string{"other"}}, true, "yes"},
		"closed the group and opened it anew":    {beacon{echoSeq: 11, withdrawn: []string{group}, claims: []namedClaim{{group, claim{claimFollows, term, 2}}}}, true, "yes"},
		"closed it and opened another like this": {beacon{echoSeq: 11, withdrawn: []string{group}, claims: []namedClaim{{"other", claim{claimFollows, term, 2}}}}, true, "no"},
	} {
		t.Run(name, func(t *testing.T) {
			s, h, in, w := begin(t)
			if c.boot {
				c.s.echoBoot = s.boot
			} else {
				c.s.echoBoot = s.boot + 1
			}
			if _, err := h.take(in, 2, &c.s, s.boot, s.now()); err != nil {
				t.Fatal(err)
			}
			if got := answered(w); got != c.want {
				t.Errorf("it %s, want %s", got, c.want)
			}
		})
	}
	t.Run("a newer session begins", func(t *testing.T) {
		s, h, in, w := begin(t)
		h.reset(&process{boot: 5})
		if got := answered(w); got != "no" {
			t.Errorf("it %s", got)
		}
		if _, err := h.take(in, 3, &beacon{echoBoot: s.boot, echoSeq: 12, claims: follows}, s.boot, s.now()); err != nil {
			t.Fatal(err)
		}
		if c, _ := s.claimed(s.known("b"), group); c != (claim{}) {
			t.Error("a beacon of the old session was taken")
		}
	})
	t.Run("beacons are late", func(t *testing.T) {
		s, h, _, _ := begin(t)
		h.at = s.now() - s.fresh - int64(time.Millisecond)
		if s.expect("b", group, term) != nil {
			t.Error("a heartbeat waits for a node that is silent")
		}
		if c, _ := s.claimed(s.known("b"), group); c != (claim{}) {
			t.Error("a late beacon still speaks")
		}
	})
	t.Run("a beacon comes twice", func(t *testing.T) {
		s, h, in, _ := begin(t)
		if _, err := h.take(in, 1, &beacon{}, s.boot, s.now()); err == nil {
			t.Error("it was taken")
		}
	})
}

// process is a session of another process.
type process struct{ boot uint64 }

func (p *process) Boot() uint64 { return p.boot }

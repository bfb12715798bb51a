package calls

// Standing is what a member knows of its group.
type Standing struct {
	Here     bool // the group runs on that node, and is more than a newcomer that knows nothing
	Led      bool // it leads, or knows a leader that it relies on
	Voter    bool // it may stand
	Follower bool // it competes with nobody: a follower, or a candidate that has lost to a leader
	Free     bool // it knows no leader at all, not even one that is gone
	Term     uint64
	// The last entry of its log decides who can win (Raft, section 5.4.1).
	LastTerm, LastIndex uint64
}

// Behind says whether this log could lose an election against that one (Raft, section 5.4.1).
func (s Standing) Behind(other Standing) bool {
	return s.LastTerm < other.LastTerm || s.LastTerm == other.LastTerm && s.LastIndex < other.LastIndex
}

// A survey is u8 layout (1), u32 count and so many names (u8 length, bytes); its answer, for each
// name in order: u8 flags, u64 term, u64 term and u64 index of the last entry.
const (
	surveyLayout = 1
	surveyed     = 25

	flagHere     = 1
	flagLed      = 2
	flagVoter    = 4
	flagFollower = 8
	flagFree     = 16
)

// MaxSurveyed bounds the groups of one survey.
const MaxSurveyed = 1 << 16

var surveyCall = Call[[]string, []Standing]{
	request: form[[]string]{
		func(names []string) ([]byte, error) { return putNames(names), nil },
		func(b []byte) ([]string, error) {
			names, _, err := readNames(b)
			return names, err
		},
	},
	answer: form[[]Standing]{put: putStandings},
	reads:  readStandings,
}

func putNames(names []string) fields {
	out := fields(make([]byte, 0, 5+64*len(names))).uint8(surveyLayout).uint32(uint32(len(names)))
	for _, name := range names {
		out = out.short(name)
	}
	return out
}

// readNames gives the names and what follows them.
func readNames(payload []byte) (names []string, rest []byte, err error) {
	r := Reader{B: payload}
	layout, count := r.Uint8(), r.Uint32()
	if r.Bad || layout != surveyLayout || count > MaxSurveyed || int(count) > len(r.B) {
		return nil, nil, ErrMalformed
	}
	names = make([]string, count)
	for i := range names {
		names[i] = r.Short()
	}
	if r.Bad {
		return nil, nil, ErrMalformed
	}
	return names, r.B, nil
}

func putStandings(all []Standing) ([]byte, error) {
	out := fields(make([]byte, 0, surveyed*len(all)))
	for _, s := range all {
		out = out.uint8(s.flags()).uint64(s.Term).uint64(s.LastTerm).uint64(s.LastIndex)
	}
	return out, nil
}

func (s Standing) flags() (flags uint8) {
	for _, f := range []struct {
		flag uint8
		on   bool
	}{{flagHere, s.Here}, {flagLed, s.Led}, {flagVoter, s.Voter}, {flagFollower, s.Follower}, {flagFree, s.Free}} {
		if f.on {
			flags |= f.flag
		}
	}
	return flags
}

func readStandings(names []string, answer []byte) ([]Standing, error) {
	if len(answer) != len(names)*surveyed {
		return nil, ErrMalformedAnswer
	}
	r := Reader{B: answer}
	out := make([]Standing, len(names))
	for i := range out {
		flags := r.Uint8()
		out[i] = Standing{
			Here: flags&flagHere != 0, Led: flags&flagLed != 0, Voter: flags&flagVoter != 0,
			Follower: flags&flagFollower != 0, Free: flags&flagFree != 0,
			Term: r.Uint64(), LastTerm: r.Uint64(), LastIndex: r.Uint64(),
		}
	}
	return out, nil
}

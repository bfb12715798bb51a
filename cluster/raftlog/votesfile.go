package raftlog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
)

// The bytes of the vote file; FORMAT.md, "Votes", tells why.
const (
	votesMagic   = "TRMVOT\x00\x01"
	votesHeader  = 64
	ballotMagic  = "TVB1"
	ballotHeader = 48
	changeHeader = 16
	// in place of the number of a raft group's pairs: nothing of it is kept
	forgotten = 1<<16 - 1

	maxVotesFile     = 256 << 20 // bytes; what a wrong file makes us read
	maxBallot        = 4 << 20   // bytes of changes in one batch; they are split well before
	splitBallot      = 1 << 20   // bytes of changes behind which another batch begins
	maxRaftGroupName = 1 << 10   // bytes
	maxVotesKey      = 1 << 8    // bytes
	maxVotesValue    = 4 << 10   // bytes
	maxVotesPairs    = 64
	minVotesFile     = 256 << 10 // bytes that a new file is allocated with, at least
)

// memberVotes is all that is kept of one raft group: what Raft stores, and what this package notes.
// It is replaced, never changed.
type memberVotes map[string][]byte

// votesLayout is how the batches of a vote file are laid out, and where they end.
type votesLayout struct {
	secret uint64
	base   int64 // bytes that were there when the file was put in its place: they are not torn
	size   int64 // bytes that the file had then
	end    int64 // where the next batch goes
	last   int64 // where the last one begins
	seq    uint64
	chain  uint32 // CRC of the last one's header
}

func (v votesLayout) header() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, votesHeader), votesMagic...)
	b = le.AppendUint64(b, uint64(v.base))
	b = le.AppendUint64(b, v.secret)
	b = le.AppendUint64(b, uint64(v.size))
	b = append(b, make([]byte, votesHeader-4-len(b))...)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// checkVotes gives an error if what is kept of a raft group is more than the file takes.
func checkVotes(name string, votes memberVotes) error {
	bad := name == "" || len(name) > maxRaftGroupName || len(votes) > maxVotesPairs
	for key, value := range votes {
		bad = bad || len(key) > maxVotesKey || len(value) > maxVotesValue
	}
	if bad {
		return fmt.Errorf("vote store: more is to be stored of group %.100q than there is room for", name)
	}
	return nil
}

// appendChange lays out what is kept of a raft group from now on; nil: nothing.
func appendChange(b []byte, name string, votes memberVotes) []byte {
	le := binary.LittleEndian
	var values []byte
	for _, key := range slices.Sorted(maps.Keys(votes)) {
		values = le.AppendUint16(values, uint16(len(key)))
		values = le.AppendUint16(values, uint16(len(votes[key])))
		values = append(append(values, key...), votes[key]...)
	}
	pairs := len(votes)
	if votes == nil {
		pairs = forgotten
	}
	head := le.AppendUint16(nil, uint16(len(name)))
	head = le.AppendUint16(head, uint16(pairs))
	head = le.AppendUint32(head, uint32(len(values)))
	b = append(b, head...)
	b = le.AppendUint32(b, crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, []byte(name)))
	b = le.AppendUint32(b, crc32.Checksum(values, castagnoli))
	b = append(append(b, name...), values...)
	return appendPadding(b, changeHeader+len(name)+len(values))
}

// appendBallot lays out the next batch, of changes that are laid out.
func (v *votesLayout) appendBallot(b, changes []byte, count int) []byte {
	le := binary.LittleEndian
	start := len(b)
	b = append(b, ballotMagic...)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, v.seq+1)
	b = le.AppendUint64(b, stamp(v.secret, v.end))
	b = le.AppendUint32(b, v.chain)
	b = le.AppendUint32(b, crc32.Checksum(changes, castagnoli))
	b = le.AppendUint32(b, uint32(len(changes)))
	b = le.AppendUint32(b, uint32(count))
	b = append(b, make([]byte, 8)...)
	crc := crc32.Checksum(b[start+8:], castagnoli)
	le.PutUint32(b[start+4:], crc)
	v.seq, v.chain, v.last = v.seq+1, crc, v.end
	v.end += int64(ballotHeader + len(changes))
	return append(b, changes...)
}

// ballot is a batch as it was read.
type ballot struct {
	crc, chain, sum uint32
	seq             uint64
	count           uint32
	changes         []byte
}

// parseBallot reads the batch that begins at pos. ok is false if none does; what its changes are is
// not verified.
func (v *votesLayout) parseBallot(file []byte, pos int64) (p ballot, ok bool) {
	le := binary.LittleEndian
	if pos+ballotHeader > int64(len(file)) {
		return p, false
	}
	b := file[pos:]
	if string(b[:4]) != ballotMagic || le.Uint64(b[16:]) != stamp(v.secret, pos) {
		return p, false
	}
	p = ballot{crc: le.Uint32(b[4:]), seq: le.Uint64(b[8:]), chain: le.Uint32(b[24:]), sum: le.Uint32(b[28:]), count: le.Uint32(b[36:])}
	size := int64(le.Uint32(b[32:]))
	if p.crc != crc32.Checksum(b[8:ballotHeader], castagnoli) || size > maxBallot || size%frameAlign != 0 ||
		size > int64(len(b))-ballotHeader || int64(p.count)*changeHeader > size {
		return p, false
	}
	p.changes = b[ballotHeader : ballotHeader+size]
	return p, true
}

func (p *ballot) good() bool { return crc32.Checksum(p.changes, castagnoli) == p.sum }

// each calls fn for what the batch says of each group. Of a batch that is not good, those raft
// groups are damaged whose names are good; the error says that not even the names are, or that
// changes may stand in each other's places.
func (p *ballot) each(fn func(name string, votes memberVotes)) error {
	le := binary.LittleEndian
	rest, before := p.changes, ""
	found := p.good() // where it is not what was written
	bad := func(what string) error { return fmt.Errorf("%w: batch %d of votes: %s", ErrDamaged, p.seq, what) }
	for range p.count {
		if len(rest) < changeHeader {
			return bad("it is too short")
		}
		names, pairs, size := int(le.Uint16(rest)), int(le.Uint16(rest[2:])), int(le.Uint32(rest[4:]))
		if names == 0 || names > maxRaftGroupName || size > len(rest)-changeHeader-names {
			return bad("a change reaches beyond it")
		}
		name := string(rest[changeHeader : changeHeader+names])
		if crc32.Update(crc32.Checksum(rest[:8], castagnoli), castagnoli, []byte(name)) != le.Uint32(rest[8:]) {
			return bad("it is not known which group's they are")
		}
		if name <= before {
			return bad("a change is not in its place")
		}
		values := rest[changeHeader+names:][:size]
		votes, ok := parseVotes(values, pairs)
		if !ok || crc32.Checksum(values, castagnoli) != le.Uint32(rest[12:]) {
			votes = memberVotes{damagedKey: []byte("its votes are not what was written")}
			found = true
		}
		fn(name, votes)
		end := changeHeader + names + size
		next := min(len(rest), align(end))
		found = found || !allZero(rest[end:next])
		rest, before = rest[next:], name
	}
	if len(rest) > 0 {
		return bad("it is too long")
	}
	if !found {
		return bad("changes that were not written there")
	}
	return nil
}

// parseVotes reads what is kept of a group.
func parseVotes(b []byte, pairs int) (memberVotes, bool) {
	if pairs == forgotten {
		return nil, len(b) == 0
	}
	if pairs > maxVotesPairs {
		return nil, false
	}
	le := binary.LittleEndian
	votes := make(memberVotes, pairs)
	for range pairs {
		if len(b) < 4 {
			return nil, false
		}
		key, value := int(le.Uint16(b)), int(le.Uint16(b[2:]))
		if key > maxVotesKey || value > maxVotesValue || 4+key+value > len(b) {
			return nil, false
		}
		votes[string(b[4:4+key])] = bytes.Clone(b[4+key : 4+key+value])
		b = b[4+key+value:]
	}
	return votes, len(b) == 0 && len(votes) == pairs
}

// parseVotesFile reads a vote file. torn says that behind the last batch stands what is left of one
// that was never acknowledged. The error wraps ErrDamaged if votes may be lost of which it is not
// known whose they are, and ErrVersion if a newer program wrote the file.
func parseVotesFile(b []byte) (v votesLayout, groups map[string]memberVotes, torn bool, err error) {
	le := binary.LittleEndian
	if len(b) < votesHeader || string(b[:7]) != votesMagic[:7] ||
		crc32.Checksum(b[:votesHeader-4], castagnoli) != le.Uint32(b[votesHeader-4:]) {
		return v, nil, false, fmt.Errorf("%w: it has no good header", ErrDamaged)
	}
	if b[7] > votesMagic[7] {
		return v, nil, false, fmt.Errorf("%w: format %d", ErrVersion, b[7])
	}
	base, size := le.Uint64(b[8:]), le.Uint64(b[24:])
	if b[7] != votesMagic[7] || base < votesHeader+ballotHeader || base > size {
		return v, nil, false, fmt.Errorf("%w: its header is none", ErrDamaged)
	}
	if size > uint64(len(b)) {
		return v, nil, false, fmt.Errorf("%w: it has %d bytes, want %d", ErrDamaged, len(b), size)
	}
	v = votesLayout{secret: le.Uint64(b[16:]), base: int64(base), size: int64(size), end: votesHeader}
	groups = map[string]memberVotes{}
	later := uint64(0) // number of a good batch somewhere behind
	for {
		p, ok := v.parseBallot(b, v.end)
		ok = ok && p.chain == v.chain && p.seq == v.seq+1
		next := v.end + ballotHeader + int64(len(p.changes))
		if !ok || !p.good() && next > v.base {
			if later <= v.seq+1 {
				later, err = v.laterBallot(b)
			}
			switch {
			case err != nil:
				return v, nil, false, err
			case v.end < v.base:
				return v, nil, false, fmt.Errorf("%w: at position %d, which was on stable storage", ErrDamaged, v.end)
			case later == 0:
				return v, groups, !allZero(b[v.end:]), nil
			case !ok:
				return v, nil, false, fmt.Errorf("%w: at position %d; batch %d, which is later, is good", ErrDamaged, v.end, later)
			}
		}
		err := p.each(func(name string, votes memberVotes) {
			if votes == nil {
				delete(groups, name)
			} else {
				groups[name] = votes
			}
		})
		if err != nil {
			return v, nil, false, err
		}
		v.last, v.end, v.seq, v.chain = v.end, next, p.seq, p.crc
	}
}

// laterBallot gives the number of a good batch behind the place where the next one should begin, 0
// if there is none. One that is there was written when this one had been acknowledged.
func (v *votesLayout) laterBallot(b []byte) (seq uint64, err error) {
	look := func(at int64, _ []byte) (c claim, ok bool) {
		if at == v.end {
			return c, false
		}
		p, ok := v.parseBallot(b, at)
		if !ok || p.seq <= v.seq+1 {
			return c, false
		}
		return claim{at: at, skip: ballotHeader, to: at + ballotHeader + int64(len(p.changes)), crc: p.sum, tag: p.seq}, true
	}
	_, err = sweep(bytes.NewReader(b), v.end, int64(len(b)), ballotHeader, look, func(c claim) bool {
		seq = c.tag
		return false
	})
	return seq, err
}

package raftlink

import "github.com/hashicorp/raft"

// maxAppend is about how many bytes of entries go into one message. What Raft gives in one
// AppendEntries can be 1024 entries of any size; beyond this it is sent as several, each
// beginning where the one before ended, which is what a leader with a smaller batch would send.
const maxAppend = 4 << 20

// splitAppend cuts a request whose entries are larger than maxAppend into several that say the
// same.
func splitAppend(args *raft.AppendEntriesRequest) []*raft.AppendEntriesRequest {
	size := 0
	for _, e := range args.Entries {
		size += len(e.Data) + len(e.Extensions)
	}
	if size <= maxAppend || len(args.Entries) < 2 {
		return []*raft.AppendEntriesRequest{args}
	}
	var out []*raft.AppendEntriesRequest
	from := 0
	size = 0
	cut := func(to int) {
		part := *args
		part.Entries = args.Entries[from:to:to]
		if from > 0 {
			before := args.Entries[from-1]
			part.PrevLogEntry, part.PrevLogTerm = before.Index, before.Term
		}
		out = append(out, &part)
		from, size = to, 0
	}
	for i, e := range args.Entries {
		n := len(e.Data) + len(e.Extensions)
		if i > from && size+n > maxAppend {
			cut(i)
		}
		size += n
	}
	cut(len(args.Entries))
	return out
}

package replica

import "github.com/trimaran-io/trimaran/fsm"

// RenewShard gives the data of entries for the log of a shard of which something may be lost: by
// them its transactional ids get other producer ids (transactions.State.Renew). snapshot is nil
// where there is none, behind has the data of the entries of commands behind it; size bounds one
// that is given, in bytes, unless it is that of one id alone. The error wraps fsm.ErrNewer where a
// newer program is needed.
func RenewShard(snapshot []byte, behind [][]byte, size int) (entries [][]byte, err error) {
	state := newShardState()
	if snapshot != nil {
		if _, _, state, err = parseShardSnapshot(snapshot); err != nil {
			return nil, err
		}
	}
	for _, data := range behind {
		commands, results, err := shardCommands(data)
		if err != nil {
			return nil, err
		}
		for i, err := range results {
			if err == nil {
				commands[i](state)
			}
		}
	}
	for _, command := range state.transactions.Renew(size) {
		entries = append(entries, fsm.ShardEntry(fsm.ShardCommand{Transactional: true, Bytes: command}))
	}
	return entries, nil
}

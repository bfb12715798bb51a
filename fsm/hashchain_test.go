package fsm

// HashChain is a hash over all batches ever applied: base offset, leader epoch
// and CRC of each. Two replicas with the same next offset have the same chain,
// or their logs differ somewhere below. It detects bugs and bit rot, not forgery.
func (p *PartitionState) HashChain() uint64 { return p.chain }

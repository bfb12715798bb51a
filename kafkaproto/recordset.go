package kafkaproto

// Limits bounds what FromMessageSet takes and makes.
type Limits struct {
	MaxMessageBytes int // of one message or compressed wrapper, as message.max.bytes
	MaxDecompressed int // of all that one set decompresses to
}

// FromMessageSet is written next.
func FromMessageSet(set []byte, lim Limits) (batches [][]byte, records int, err error) {
	return nil, 0, ErrUnknownMagic
}

// ToMessageSet is written next.
func ToMessageSet(dst, batches []byte, magic int8, from int64, maxBytes int) ([]byte, error) {
	return dst, ErrUnknownMagic
}

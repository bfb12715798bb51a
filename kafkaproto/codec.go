package kafkaproto

// Codec is a compression codec, numbered as in the attributes of messages and
// record batches.
type Codec int8

// The codecs of Kafka. Message sets of magic 0 and 1 cannot carry Zstd.
const (
	None Codec = iota
	Gzip
	Snappy
	LZ4
	Zstd
)

var codecNames = [...]string{"none", "gzip", "snappy", "lz4", "zstd"}

// String gives Kafka's name of the codec.
func (c Codec) String() string {
	if c < 0 || int(c) >= len(codecNames) {
		return "unknown"
	}
	return codecNames[c]
}

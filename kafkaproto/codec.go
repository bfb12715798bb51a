package kafkaproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

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

// maxZstdWindow is the largest window that Kafka's own compression levels use;
// a frame may claim more, and would get it as memory.
const maxZstdWindow = 128 << 20

// Compressors and decompressors are large and slow to make, so they are kept.
// One that failed is as good as new after its Reset.
var (
	gzipWriters = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}
	lz4Writers  = sync.Pool{New: func() any {
		w := lz4.NewWriter(nil)
		// What Java's producer uses; a reader allocates a block or two of this size.
		if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb)); err != nil {
			panic("kafkaproto: lz4 block size: " + err.Error())
		}
		return w
	}}
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
	lz4Readers  = sync.Pool{New: func() any { return lz4.NewReader(nil) }}
	zstdReaders = sync.Pool{New: func() any {
		// One decoder, no goroutines: the caller's is enough.
		r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			panic("kafkaproto: zstd reader: " + err.Error())
		}
		return r
	}}
)

// scratch holds buffers for what lives no longer than one conversion.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// maxScratch is the largest buffer kept for later; larger ones are rare and
// would stay for ever.
const maxScratch = 4 << 20

func getScratch() *[]byte { return scratch.Get().(*[]byte) }

// putScratch gives back what getScratch gave, with the buffer it has grown to.
func putScratch(p *[]byte, grown []byte) {
	if cap(grown) <= maxScratch {
		*p = grown[:0]
		scratch.Put(p)
	}
}

// appender is an io.Writer onto a slice.
type appender struct{ to []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.to = append(a.to, p...)
	return len(p), nil
}

// compress appends src, compressed, to dst. Snappy gets xerial framing, which
// snappy-java, and so every Java consumer, expects.
func compress(codec Codec, dst, src []byte) ([]byte, error) {
	switch codec {
	case Gzip:
		out := appender{dst}
		w := gzipWriters.Get().(*gzip.Writer)
		defer gzipWriters.Put(w)
		w.Reset(&out)
		return writeAll(w, src, &out)
	case LZ4:
		out := appender{dst}
		w := lz4Writers.Get().(*lz4.Writer)
		defer lz4Writers.Put(w)
		w.Reset(&out)
		return writeAll(w, src, &out)
	case Snappy:
		return appendXerial(dst, src), nil
	}
	return dst, fmt.Errorf("%w: codec %d", ErrUnsupportedCompression, codec)
}

func writeAll(w io.WriteCloser, src []byte, out *appender) ([]byte, error) {
	if _, err := w.Write(src); err != nil {
		return out.to, err
	}
	err := w.Close()
	return out.to, err
}

// decompress appends what src holds to dst, which must be empty. It stops with
// ErrTooLarge once there are more than limit bytes, and never makes room for more
// than a few times what src has and what it has unpacked so far; other errors are
// ErrCorrupt and ErrUnsupportedCompression. How strictly src is read is its origin's: see
// there. In messages of magic 0 the checksum of the LZ4 frame header is ignored, since
// Java clients computed it over the wrong bytes (KAFKA-3160).
func decompress(codec Codec, from origin, dst, src []byte, limit int) ([]byte, error) {
	if err := checkCompressed(codec, from, src); err != nil {
		return dst, err
	}
	var out []byte
	var err error
	switch codec {
	case Gzip:
		r := gzipReaders.Get().(*gzip.Reader)
		defer gzipReaders.Put(r)
		source := bytes.NewReader(src)
		if err = r.Reset(source); err == nil {
			r.Multistream(from != fromBatch)
			out, err = readAll(dst, r, len(src), limit)
		}
		if err == nil && source.Len() > 0 {
			err = fmt.Errorf("%w: gzip: %d bytes behind the one member", ErrCorrupt, source.Len())
		}
	case Snappy:
		out, err = readSnappy(dst, src, from != fromBatch, limit)
	case LZ4:
		r := lz4Readers.Get().(*lz4.Reader)
		defer lz4Readers.Put(r)
		var source io.Reader = bytes.NewReader(src)
		if from == fromSet0 {
			source = mendLZ4(src)
		}
		r.Reset(source)
		out, err = readAll(dst, r, len(src), limit)
	case Zstd:
		r := zstdReaders.Get().(*zstd.Decoder)
		defer zstdReaders.Put(r)
		if err = r.Reset(bytes.NewReader(src)); err == nil {
			out, err = readAll(dst, r, len(src), limit)
		}
	default:
		return dst, fmt.Errorf("%w: codec %d", ErrUnsupportedCompression, codec)
	}
	switch {
	case err == nil:
		return out, nil
	case errors.Is(err, ErrTooLarge), errors.Is(err, ErrCorrupt):
		return out, err
	default:
		return out, fmt.Errorf("%w: %v: %w", ErrCorrupt, codec, err)
	}
}

// readAll appends all of r to dst, at most limit bytes; hint is the size of
// what r unpacks.
func readAll(dst []byte, r io.Reader, hint, limit int) ([]byte, error) {
	dst = slices.Grow(dst, min(2*hint+512, limit+1))
	for idle := 0; ; {
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if idle++; n > 0 {
			idle = 0
		}
		switch {
		case len(dst) > limit:
			return dst, fmt.Errorf("%w: decompresses to more than %d bytes", ErrTooLarge, limit)
		case err == io.EOF:
			return dst, nil
		case err != nil:
			return dst, err
		case idle > 100:
			return dst, io.ErrNoProgress
		case len(dst) == cap(dst):
			dst = slices.Grow(dst, min(len(dst), limit+1-len(dst)))
		}
	}
}

// xerial framing, the stream format of snappy-java: this header (its last
// eight bytes are version and lowest compatible version), then blocks, each a
// 4-byte size and that many bytes of raw snappy.
const (
	xerialMagic  = "\x82SNAPPY\x00"
	xerialHeader = xerialMagic + "\x00\x00\x00\x01\x00\x00\x00\x01"
	xerialBlock  = 32 << 10 // bytes before compression, as snappy-java does
)

func appendXerial(dst, src []byte) []byte {
	dst = append(dst, xerialHeader...)
	for len(src) > 0 {
		n := min(len(src), xerialBlock)
		start := len(dst)
		dst = slices.Grow(dst, 4+snappy.MaxEncodedLen(n))
		packed := snappy.Encode(dst[start+4:cap(dst)], src[:n])
		dst = dst[:start+4+len(packed)]
		binary.BigEndian.PutUint32(dst[start:], uint32(len(packed)))
		src = src[n:]
	}
	return dst
}

// readSnappy takes both framings that clients use: xerial's and none. Streams of
// xerial may stand one after another, each with its header, where several is true: Java
// reads them, librdkafka does not.
func readSnappy(dst, src []byte, several bool, limit int) ([]byte, error) {
	if !bytes.HasPrefix(src, []byte(xerialMagic)) {
		return snappyBlock(dst, src, limit)
	}
	for first := true; len(src) > 0; first = false {
		if (first || several) && bytes.HasPrefix(src, []byte(xerialMagic)) {
			if len(src) < len(xerialHeader) {
				return dst, fmt.Errorf("%w: snappy stream header is cut", ErrCorrupt)
			}
			src = src[len(xerialHeader):]
			continue
		}
		if len(src) < 4 {
			return dst, fmt.Errorf("%w: snappy block size is cut", ErrCorrupt)
		}
		n := int64(binary.BigEndian.Uint32(src))
		src = src[4:]
		if n > int64(len(src)) {
			return dst, fmt.Errorf("%w: snappy block of %d bytes where %d are left", ErrCorrupt, n, len(src))
		}
		var err error
		if dst, err = snappyBlock(dst, src[:n], limit); err != nil {
			return dst, err
		}
		src = src[n:]
	}
	return dst, nil
}

// snappyBlock appends one block of raw snappy, unpacked. The length that a
// block declares is not believed beyond what its bytes can give: three bytes
// make at most 64 (snappy format, copies with 2-byte offset).
func snappyBlock(dst, block []byte, limit int) ([]byte, error) {
	n, err := snappy.DecodedLen(block)
	switch {
	case err != nil:
		return dst, fmt.Errorf("%w: snappy: %w", ErrCorrupt, err)
	case n > 22*len(block):
		return dst, fmt.Errorf("%w: snappy block of %d bytes cannot hold the %d it declares", ErrCorrupt, len(block), n)
	case n > limit-len(dst):
		return dst, fmt.Errorf("%w: decompresses to more than %d bytes", ErrTooLarge, limit)
	}
	dst = slices.Grow(dst, n)
	// Decode uses the room it is given when it suffices, which it does.
	if _, err := snappy.Decode(dst[len(dst):len(dst)+n], block); err != nil {
		return dst, fmt.Errorf("%w: snappy: %w", ErrCorrupt, err)
	}
	return dst[:len(dst)+n], nil
}

// mendLZ4 gives the LZ4 frame src with the header checksum that its header
// should have.
func mendLZ4(src []byte) io.Reader {
	if len(src) <= lz4FlagsAt {
		return bytes.NewReader(src)
	}
	at := lz4HeaderSize(src[lz4FlagsAt]) - 1
	if len(src) <= at {
		return bytes.NewReader(src)
	}
	head := slices.Clone(src[:at+1])
	head[at] = byte(shortXXH32(head[lz4FlagsAt:at]) >> 8)
	return io.MultiReader(bytes.NewReader(head), bytes.NewReader(src[at+1:]))
}

// shortXXH32 is xxHash 32 with seed 0 of fewer than 16 bytes.
func shortXXH32(b []byte) uint32 {
	const p1, p2, p3, p4, p5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
	h := uint32(p5) + uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		h += binary.LittleEndian.Uint32(b) * p3
		h = (h<<17 | h>>15) * p4
	}
	for _, c := range b {
		h += uint32(c) * p5
		h = (h<<11 | h>>21) * p1
	}
	h = (h ^ h>>15) * p2
	h = (h ^ h>>13) * p3
	return h ^ h>>16
}

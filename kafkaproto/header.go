package kafkaproto

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Header is a request's header.
type Header struct {
	Key, Version  int16
	CorrelationID int32
	ClientID      string // the client's own words: up to 32 KiB of anything
	HasClientID   bool   // false when the client sent null
}

// flexibleFrom[key] is the first version of an API whose headers carry tagged
// fields (KIP-482), math.MaxInt16 for none.
var flexibleFrom = func() (from [128]int16) {
	for key := range from {
		from[key] = math.MaxInt16
		req := kmsg.RequestForKey(int16(key))
		if req == nil {
			continue
		}
		for v := int16(0); v <= req.MaxVersion(); v++ {
			req.SetVersion(v)
			if req.IsFlexible() {
				from[key] = v
				break
			}
		}
	}
	return from
}()

func (h Header) flexible() bool {
	return h.Key >= 0 && int(h.Key) < len(flexibleFrom) && h.Version >= flexibleFrom[h.Key]
}

// ParseHeader reads the header of a request without its size prefix and gives
// the rest as body, which aliases frame. It knows header versions 1 and 2 (with
// tagged fields, which are skipped) by API key and version, and version 0,
// which only ControlledShutdown v0 has. Whether the API is served is not its
// concern: an unknown one is read as header version 1. On an error, always
// ErrMalformed, h holds what was read.
func ParseHeader(frame []byte) (h Header, body []byte, err error) {
	if len(frame) < minFrame {
		return h, nil, fmt.Errorf("%w: header of %d bytes", ErrMalformed, len(frame))
	}
	h.Key = int16(binary.BigEndian.Uint16(frame))
	h.Version = int16(binary.BigEndian.Uint16(frame[2:]))
	h.CorrelationID = int32(binary.BigEndian.Uint32(frame[4:]))
	body = frame[minFrame:]
	if h.Key == int16(kmsg.ControlledShutdown) && h.Version == 0 {
		return h, body, nil
	}
	if len(body) < 2 {
		return h, nil, fmt.Errorf("%w: header ends before the client id", ErrMalformed)
	}
	n := int(int16(binary.BigEndian.Uint16(body)))
	body = body[2:]
	if n < -1 || n > len(body) {
		return h, nil, fmt.Errorf("%w: client id of %d bytes where %d are left", ErrMalformed, n, len(body))
	}
	if n >= 0 {
		h.ClientID, h.HasClientID = string(body[:n]), true
		body = body[n:]
	}
	if h.flexible() {
		w := walker{rest: body}
		w.tags()
		if w.bad {
			return h, nil, fmt.Errorf("%w: tagged fields of the header", ErrMalformed)
		}
		body = w.rest
	}
	return h, body, nil
}

// AppendResponseHeader appends the header of the response to h: the correlation
// id, and an empty list of tagged fields where the API's version has them.
// ApiVersions never has them, since a client reads that response before it knows
// what the broker speaks (KIP-511).
func AppendResponseHeader(dst []byte, h Header) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.CorrelationID))
	if h.Key != int16(kmsg.ApiVersions) && h.flexible() {
		dst = append(dst, 0)
	}
	return dst
}

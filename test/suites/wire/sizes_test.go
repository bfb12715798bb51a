package wire

import (
	"encoding/binary"
	"testing"

	"github.com/trimaran-io/trimaran/test/harness"
)

// The golden texts are checked before a cluster sees them: every size prefix and
// every message set must be whole, so that a mistake in the text is not taken for
// one of the broker.
func TestGoldenTextsAreWhole(t *testing.T) {
	for _, e := range exchanges {
		for side, text := range map[string]string{"request": e.request, "answer": e.answer} {
			b := unhex(t, text)
			if got, want := int(binary.BigEndian.Uint32(b)), len(b)-4; got != want {
				t.Errorf("%s, %s: says size %#x and has %#x", e.name, side, got, want)
			}
		}
		b := unhex(t, e.request)
		if binary.BigEndian.Uint16(b[4:]) == 0 && len(b) > 48 {
			const at = 48 // where a one-partition Produce of the topic "golden" has its message set
			fixCRCs(b[at:])
			if _, cut, err := harness.Messages(b[at:]); (err != nil || cut) && e.name != "produce with a wrong CRC" {
				t.Errorf("%s: message set: cut %v, %v", e.name, cut, err)
			}
		}
	}
}

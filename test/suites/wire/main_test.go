// Package wire holds requests as a client of Kafka 0.8 writes them, byte for
// byte, and the answers that a broker of 0.8 gives, against a real cluster.
//
// You are here: below every client library. The hexadecimal in this folder was
// written from Kafka's protocol guide, field by field; no code of the product
// made it.
package wire

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// unhex takes hexadecimal with blanks and "# comments" out of a text.
func unhex(t *testing.T, text string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func dial(t *testing.T, addr string) *harness.Wire {
	t.Helper()
	w, err := harness.DialWire(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// create makes a topic whose name has a fixed length, so that golden bytes can name it.
func create(t *testing.T, c *harness.Cluster, topic string, partitions int32) {
	t.Helper()
	if err := c.CreateTopic(t.Context(), topic, partitions, 3); err != nil {
		t.Fatal(err)
	}
}

// healthy says whether a fresh connection is served.
func healthy(t *testing.T, c *harness.Cluster) {
	t.Helper()
	for _, n := range c.Nodes {
		err := harness.Again(n.Addr(), time.Minute, func(w *harness.Wire) error {
			_, err := w.Metadata("health")
			return err
		})
		if err != nil {
			t.Fatalf("%s does not serve: %v", n.ID, err)
		}
	}
}

func containsAny(text string, some ...string) bool {
	for _, s := range some {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

package harness

import "testing"

// What long tests change in the source is there to be changed.
func TestChangesFit(t *testing.T) {
	for _, c := range hanging {
		if _, err := c.source(); err != nil {
			t.Error(err)
		}
	}
}

package coordinator

import "testing"

// FuzzSubscription: a subscription is a client's bytes.
func FuzzSubscription(f *testing.F) {
	f.Add(subscription("t1", "t2"))
	f.Add(subscription()[:5])
	f.Fuzz(func(t *testing.T, b []byte) {
		topics := make(map[string]bool)
		if addTopics(topics, b) && len(topics) > len(b)/2 {
			t.Errorf("%d topics in %d bytes", len(topics), len(b))
		}
	})
}

package cluster

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	trailingEntries = 16 // so that a follower is soon far behind
	shardSegmentBytes = 1 << 20
	// memberlist's shutdown does not wait for a probe that is under way; it ends
	// with its own timeout.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

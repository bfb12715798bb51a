package election

import (
	"encoding/hex"
	"testing"
)

// TestABeaconStaysAsItIs: nodes of different versions read each other's beacons.
func TestABeaconStaysAsItIs(t *testing.T) {
	s := &beacon{
		echoBoot: 1, echoSeq: 2, suspects: []string{"n1.0000abcd"}, withdrawn: []string{"g", "h"},
		claims: []namedClaim{{"g", claim{claimFollows, 3, 400}}, {"i", claim{claimLeads, 5, 6}}},
	}
	const want = "0100000000000000010000000000000002010b6e312e303030306162636402016701680201000000000000000390030167020000000000000005060169"
	if got := hex.EncodeToString(s.encode()); got != want {
		t.Errorf("a beacon is\n%s, and was\n%s", got, want)
	}
}

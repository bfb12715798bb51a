package collector

import "testing"

func TestCollectorLetsGarbageWaitWhenItIsBusy(t *testing.T) {
	for _, x := range []struct {
		what    string
		percent int
		live    int64
		share   float64
		want    int
	}{
		{"nothing to do", 100, 100 << 20, 0, 100},
		{"as much as it should", 100, 100 << 20, 0.03, 100},
		{"busy", 100, 100 << 20, 0.1, 200},
		{"still busy", 300, 100 << 20, 0.06, 360},
		{"no more than the bound", 600, 100 << 20, 0.3, 612},
		{"more is alive than before: less may wait", 600, 512 << 20, 0.3, 200},
		{"a heap far beyond the bound is Go's own matter", 100, 8 << 30, 0.3, 106},
		{"quiet again", 450, 100 << 20, 0, 338},
		{"quiet for long", 110, 100 << 20, 0, 100},
		{"nothing alive", 100, 0, 1, 400},
	} {
		c := &collector{most: 512 << 20, percent: x.percent}
		if got := c.next(x.live, x.share); got != x.want {
			t.Errorf("%s: %d, want %d", x.what, got, x.want)
		}
	}
	c := &collector{most: 64 << 20, least: 400, percent: 400}
	if got := c.next(4<<20, 0); got != 400 {
		t.Errorf("quiet, with a least percentage: %d, want 400", got)
	}
	if got := c.next(64<<20, 0); got != 200 {
		t.Errorf("the bound counts more than the least percentage: %d, want 200", got)
	}
	if m := memory(); m < 64<<20 {
		t.Errorf("memory of %d bytes", m)
	}
}

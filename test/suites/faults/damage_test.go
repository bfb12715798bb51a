package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/trimaran-io/trimaran/test/harness"
)

// harm is something done to the files of a partition's replica on a node that is down.
type harm struct {
	name string
	do   func(t *testing.T, dir, newest string)
	says string // what the node's log has after its start
}

// Small segments, so that most of what a replica has is not the end of its log.
const damageSegment = 128 << 10

func segmentsIn(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*.log"))
	must(t, err)
	slices.Sort(list)
	if len(list) < 3 {
		t.Fatalf("%s has %d segments, want some", dir, len(list))
	}
	return list
}

func rewrite(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, change(b), 0o600))
}

func flip(at func(size int) int) func([]byte) []byte {
	return func(b []byte) []byte { b[at(len(b))] ^= 0x10; return b }
}

const rebuiltLine = "a damaged replica is removed and begins anew"

// In order: a replica that was rebuilt has to have a few segments again for the next.
var harms = []harm{
	{"an old segment is gone", func(t *testing.T, dir, newest string) {
		must(t, os.Remove(segmentsIn(t, dir)[0]))
	}, rebuiltLine},
	{"a byte flipped in the segment that was written to", func(t *testing.T, dir, newest string) {
		rewrite(t, newest, flip(func(int) int { return 64 + 40 + 100 }))
	}, rebuiltLine},
	{"a byte flipped in an old segment's head", func(t *testing.T, dir, newest string) {
		rewrite(t, segmentsIn(t, dir)[1], flip(func(int) int { return 20 }))
	}, rebuiltLine},
	{"a segment cut in the middle", func(t *testing.T, dir, newest string) {
		rewrite(t, segmentsIn(t, dir)[1], func(b []byte) []byte { return b[:len(b)/2] })
	}, rebuiltLine},
	{"indexes gone and damaged", func(t *testing.T, dir, newest string) {
		list := segmentsIn(t, dir)
		must(t, os.Remove(strings.TrimSuffix(list[0], ".log")+".idx"))
		rewrite(t, strings.TrimSuffix(list[1], ".log")+".idx", flip(func(n int) int { return n / 2 }))
	}, "an index is made again"},
	{"the manifest damaged", func(t *testing.T, dir, newest string) {
		rewrite(t, filepath.Join(dir, "manifest"), flip(func(n int) int { return n - 5 }))
	}, rebuiltLine},
	{"the manifest gone", func(t *testing.T, dir, newest string) {
		must(t, os.Remove(filepath.Join(dir, "manifest")))
	}, rebuiltLine},
	{"the whole replica gone", func(t *testing.T, dir, newest string) {
		must(t, os.RemoveAll(dir))
	}, rebuiltLine},
}

// What a disk does to the files of a replica while its node is down, one after the other on one
// node after the other, with producers at work. The others serve meanwhile, the replica is mended
// or made anew, and in the end every replica has every acknowledged record. The other partitions of
// the node notice nothing.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{NodeArgs: []string{fmt.Sprint("--log-segment-bytes=", damageSegment)}})
	create(t, c, "damaged", 1)
	create(t, c, "beside", 2)
	l := harness.StartLoad("damaged", 1, []string{c.ShimAddr(), c.Node(1).Addr()}, -1)
	defer l.Stop()
	beside := harness.StartLoad("beside", 2, []string{c.ShimAddr()}, -1)
	defer beside.Stop()
	dir := replicaFolder(t, c, "damaged")
	for i, h := range harms {
		n := c.Node(i%3 + 1)
		path := filepath.Join(n.Data, "partitions", dir)
		for have := 0; have < 4; {
			must(t, l.Progress(300, patience))
			list, err := filepath.Glob(filepath.Join(path, "*.log"))
			must(t, err)
			have = len(list)
		}
		// What the journal still has of a segment it puts right. A restart begins another one.
		must(t, n.Kill9())
		list := segmentsIn(t, path)
		must(t, n.Restart())
		must(t, l.Progress(20, patience))
		must(t, n.Kill9())
		must(t, l.Progress(20, patience))
		h.do(t, path, list[len(list)-1])
		before := strings.Count(n.Output(), h.says)
		must(t, n.Start())
		if err := harness.Eventually(patience, func() bool { return strings.Count(n.Output(), h.says) > before }); err != nil {
			t.Fatalf("%s: %s does not say %q:\n%s", h.name, n.ID, h.says, n.Tail(20))
		}
		must(t, l.Progress(20, patience))
		must(t, beside.Progress(20, patience))
		must(t, n.WaitReady(patience))
		allVote(t, c, "damaged")
		t.Logf("%s at %s: there again", h.name, n.ID)
	}
	verify(t, c, l)
	verify(t, c, beside)
	for _, topic := range []string{"damaged", "beside"} {
		waitNoLag(t, c, topic)
		replicasAgree(t, c.Addrs(), topic)
	}
}

// allVote waits until no replica of the topic is away, damaged, or no voter yet.
func allVote(t *testing.T, c *harness.Cluster, topic string) {
	t.Helper()
	var last *harness.Status
	err := harness.Eventually(patience, func() bool {
		s, err := c.Node(1).Status()
		if err != nil {
			return false
		}
		last = s
		for _, tp := range s.Topics {
			for _, p := range tp.Partitions {
				for _, r := range p.Replicas {
					if tp.Name == topic && r.Role != "leader" && r.Role != "follower" {
						return false
					}
				}
			}
		}
		return true
	})
	if err != nil {
		t.Fatalf("replicas of %s do not come back: %+v", topic, last)
	}
}

// replicaFolder gives the name of the folder of a topic's partition 0: the only one that grows by
// then.
func replicaFolder(t *testing.T, c *harness.Cluster, topic string) string {
	t.Helper()
	id := ""
	for _, line := range strings.Split(trimaran(t, c.Addrs(), "topic", "describe", topic), "\n") {
		for _, word := range strings.Fields(line) {
			if word = strings.TrimSuffix(word, ","); len(word) == 32 {
				id = word
			}
		}
	}
	if id == "" {
		t.Fatalf("no topic id in the description of %s: %s", topic, trimaran(t, c.Addrs(), "topic", "describe", topic))
	}
	return id + "-0"
}

package harness

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// witnessGrace is how long a node may tell monitoring something else than its clients see: an
// election, and what a machine that is busy with other tests adds to it.
const witnessGrace = 20 * time.Second

const (
	witnessTopic      = "witness"
	witnessPartitions = 3
)

// Witness holds /readyz and /metrics of every node against what a client is served through it, as
// long as a test lasts.
type Witness struct {
	c          *Cluster
	stop       context.CancelFunc
	done       sync.WaitGroup
	mu         sync.Mutex // guards complaints
	complaints []string
}

// StartWitness creates a topic of its own and begins. The test fails if a node contradicts its
// clients for longer than witnessGrace.
func StartWitness(t testing.TB, c *Cluster) {
	t.Helper()
	if err := c.CreateTopic(t.Context(), witnessTopic, witnessPartitions, 3); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &Witness{c: c, stop: stop}
	for _, n := range c.Nodes {
		w.Follow(ctx, n)
	}
	t.Cleanup(func() {
		w.stop()
		w.done.Wait()
		for _, s := range w.complaints {
			t.Error(s)
		}
	})
}

// Follow watches one node until ctx ends.
func (w *Witness) Follow(ctx context.Context, n *Node) {
	w.done.Go(func() {
		since := map[string]time.Time{}
		for ctx.Err() == nil {
			wrong := w.look(n)
			for what := range since {
				if wrong[what] == "" {
					delete(since, what)
				}
			}
			for what, text := range wrong {
				if since[what].IsZero() {
					since[what] = time.Now()
				} else if time.Since(since[what]) > witnessGrace {
					w.mu.Lock()
					w.complaints = append(w.complaints, fmt.Sprintf("for %v now %s: %s", witnessGrace, n.ID, text))
					w.mu.Unlock()
					return
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(500 * time.Millisecond):
			}
		}
	})
}

// look gives what a node says that is not what a client sees; nothing if it does not run.
func (w *Witness) look(n *Node) map[string]string {
	pid := n.Pid()
	if !n.Running() {
		return nil
	}
	failed := 0
	var mu sync.Mutex
	var asked sync.WaitGroup
	for p := range int32(witnessPartitions) {
		asked.Go(func() {
			if err := produceOnce(n.Addr(), p); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed++
			}
		})
	}
	var status *Status
	asked.Go(func() { status, _ = n.Status() })
	asked.Wait()
	ready := n.Ready()
	body, _, err := Get("http://" + n.Addr() + "/metrics")
	if !n.Running() || n.Pid() != pid {
		return nil // what was asked is of two runs
	}
	wrong := map[string]string{}
	if failed == 0 && ready != nil {
		wrong["ready"] = fmt.Sprintf("it serves every partition, and is not ready: %v", ready)
	}
	if failed == witnessPartitions && ready == nil && (status == nil || !status.Confirmed) {
		wrong["ready"] = "it serves no partition and does not know the catalog, and is ready"
	}
	if err != nil {
		return wrong // it answers nobody, monitoring neither
	}
	offline := metric(body, "trimaran_offline_partitions_count")
	if failed > 0 && offline == 0 {
		wrong["offline"] = fmt.Sprintf("%d of %d partitions are not served, and none is offline", failed, witnessPartitions)
	}
	if confirmed := status != nil && status.Confirmed; confirmed == (metric(body, "trimaran_offline_catalog_count") > 0) {
		wrong["catalog"] = fmt.Sprintf("the catalog is confirmed: %v, and that is not what trimaran_offline_catalog_count says", confirmed)
	}
	return wrong
}

func produceOnce(addr string, partition int32) error {
	w, err := DialWire(addr)
	if err != nil {
		return err
	}
	defer w.Close()
	w.Conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, err = w.Produce(witnessTopic, partition, -1, "seen")
	return err
}

// metric gives the value of a metric without labels, -1 if it is not there.
func metric(body, name string) float64 {
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			if v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64); err == nil {
				return v
			}
		}
	}
	return -1
}

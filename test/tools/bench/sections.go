package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// fourMB is how many batches make about 4 MB in flight, at most 64.
func fourMB(size int) int { return min(64, max(4, 4<<20/size)) }

func sizeName(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MB", n>>20)
	}
	return fmt.Sprintf("%d KB", n>>10)
}

func topic(c *harness.Cluster, name string, partitions int) (string, error) {
	t := harness.Topic("bench-" + strings.ToLower(name))
	return t, c.CreateTopic(context.Background(), t, int32(partitions), 3)
}

const enough = 1 << 30 // bytes that a fetch run reads at most

// small segments let go of what is deleted while more is written.
var small = []string{"TRIMARAN_LOG_SEGMENT_BYTES=67108864"}

// onePartition measures both batch sizes and reads back what was written. In memory the nodes have
// small segments.
func (b *bench) onePartition(c *harness.Cluster, w way, old, memory bool) (all []result, err error) {
	for _, size := range []int{16 << 10, 1 << 20} {
		t, err := topic(c, fmt.Sprintf("%s-%d", w.name, size>>10), 1)
		if err != nil {
			return nil, err
		}
		l := load{topic: t, partitions: 1, p: batch(size, old), conns: 1, inFlight: fourMB(size), trim: memory}
		r, err := b.median(c, w, l)
		if err != nil {
			return nil, err
		}
		r.print(w.name + ", produce " + sizeName(size) + " batches")
		all = append(all, r)
		if !old && size == 16<<10 {
			l.perSecond = r.perSecond() / float64(l.p.records) / 2
			half, err := l.produce(c, w, b.window)
			if err != nil {
				return nil, err
			}
			half.print(w.name + ", the same at half load")
		}
		if memory { // little is left of it: write what can be read
			if err := drop(c, t); err != nil {
				return nil, err
			}
			if l.topic, err = topic(c, fmt.Sprintf("%s-read-%d", w.name, size>>10), 1); err != nil {
				return nil, err
			}
			l.trim, l.perSecond = false, 0
			if _, err := l.produce(c, w, b.window); err != nil {
				return nil, err
			}
		}
		f, err := fetchAll(c, w, l.topic, 1, l.p, enough)
		if err != nil {
			return nil, err
		}
		f.print(w.name + ", fetch them, 1 MB each")
		all = append(all, f)
		if err := drop(c, l.topic); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (b *bench) onePartitionMemory() error {
	if b.memoryDir == "" {
		fmt.Println("  left out: no folder in memory")
		return nil
	}
	return b.with(b.memoryDir, small, "", func(c *harness.Cluster) error {
		header()
		_, err := b.onePartition(c, ways(c)[0], false, true)
		return err
	})
}

func (b *bench) onePartitionDisk() error {
	return b.with(b.diskDir, nil, "", func(c *harness.Cluster) error {
		header()
		r, err := b.onePartition(c, ways(c)[0], false, false)
		if err != nil {
			return err
		}
		third := b.disk.mbs / 3
		fmt.Printf("  of a third of the disk's %.0f MB/s: 16 KB %.0f %%, 1 MB %.0f %%\n", b.disk.mbs, 100*r[0].mbs()/third, 100*r[2].mbs()/third)
		return nil
	})
}

func (b *bench) oldClients() error {
	return b.with(b.fast(), small, "", func(c *harness.Cluster) error {
		header()
		_, err := b.onePartition(c, ways(c)[0], true, true)
		return err
	})
}

// fast is the folder in memory, if there is one.
func (b *bench) fast() string {
	if b.memoryDir != "" {
		return b.memoryDir
	}
	return b.diskDir
}

func (b *bench) waysIn() error {
	return b.with(b.fast(), small, "", func(c *harness.Cluster) error {
		header()
		var first []result
		for _, w := range ways(c) {
			r, err := b.onePartition(c, w, false, true)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			if first == nil {
				first = r
				continue
			}
			fmt.Printf("  %s, CPU beside TCP's: produce 16 KB %.2f, 1 MB %.2f, fetch %.2f\n", w.name,
				r[0].cpuPerMB()/first[0].cpuPerMB(), r[2].cpuPerMB()/first[2].cpuPerMB(), r[3].cpuPerMB()/first[3].cpuPerMB())
		}
		return nil
	})
}

func (b *bench) oneAtATime() error {
	return b.with(b.diskDir, nil, "", func(c *harness.Cluster) error {
		for _, w := range ways(c) {
			t, err := topic(c, "one-"+w.name, 1)
			if err != nil {
				return err
			}
			r, err := b.median(c, w, load{topic: t, partitions: 1, p: batch(1, false), conns: 1, inFlight: 1})
			if err != nil {
				return err
			}
			floor := 2*b.disk.small + 2*b.roundTrip
			fmt.Printf("  %-10s p50 %s, p99 %s, %.0f a second; two syncs and two round trips are %s: %.1f times that\n", w.name, r.p(0.5), r.p(0.99), r.perSecond(),
				ms(floor), float64(quantile(r.latency, 0.5))/float64(floor))
		}
		return nil
	})
}

// pipeline measures what a client gets that has few requests in flight, as clients do by default,
// beside one that has many.
func (b *bench) pipeline() error {
	return b.with(b.diskDir, nil, "", func(c *harness.Cluster) error {
		header()
		var figures []float64
		for _, inFlight := range []int{1, 5, 64} {
			t, err := topic(c, fmt.Sprintf("pipeline-%d", inFlight), 1)
			if err != nil {
				return err
			}
			r, err := b.median(c, ways(c)[0], load{topic: t, partitions: 1, p: batch(16<<10, false), conns: 1, inFlight: inFlight})
			if err != nil {
				return err
			}
			r.print(fmt.Sprintf("TCP, %d in flight", inFlight))
			figures = append(figures, r.mbs())
			if err := drop(c, t); err != nil {
				return err
			}
		}
		fmt.Printf("  5 in flight give %.2f of what 64 give\n", figures[1]/figures[2])
		return nil
	})
}

func (b *bench) manyPartitions() error {
	return b.with(b.diskDir, nil, "", func(c *harness.Cluster) error {
		header()
		var one float64
		for _, n := range []int{1, 16, 100} {
			t, err := topic(c, fmt.Sprintf("many-%d", n), n)
			if err != nil {
				return err
			}
			r, err := b.median(c, ways(c)[0], load{topic: t, partitions: n, p: batch(16<<10, false), conns: 4, inFlight: 64})
			if err != nil {
				return err
			}
			r.print(fmt.Sprintf("TCP, produce to %d", n))
			if one == 0 {
				one = r.mbs()
			} else {
				fmt.Printf("  %.0f %% of one partition's\n", 100*r.mbs()/one)
			}
			f, err := fetchAll(c, ways(c)[0], t, n, batch(16<<10, false), enough/2)
			if err != nil {
				return err
			}
			f.print("TCP, fetch them, 1 MB each")
		}
		return nil
	})
}

// busyAmongIdle measures ten partitions alone and with 990 others that nobody uses, in turn: a
// machine whose disk or memory becomes slower on the way slows both.
func (b *bench) busyAmongIdle() error {
	const busy, idle = 10, 990
	return b.with(b.fast(), []string{"TRIMARAN_LOG_SEGMENT_BYTES=16777216"}, "", func(c *harness.Cluster) error {
		header()
		measure := func(what string, round int) (r result, err error) {
			t, err := topic(c, "busy", busy)
			if err != nil {
				return r, err
			}
			if err := quiet(c); err != nil {
				return r, err
			}
			l := load{topic: t, partitions: busy, p: batch(16<<10, false), conns: 4, inFlight: 16, trim: true}
			if _, err := l.produce(c, ways(c)[0], b.window/4); err != nil {
				return r, err
			}
			if r, err = l.produce(c, ways(c)[0], b.window); err != nil {
				return r, err
			}
			r.print(fmt.Sprintf("10 partitions %s, %d", what, round))
			return r, drop(c, t)
		}
		var alone, among []result
		for round := range b.windows {
			r, err := measure("alone", round+1)
			if err != nil {
				return err
			}
			alone = append(alone, r)
			other, err := topic(c, "idle", idle)
			if err != nil {
				return err
			}
			if err := allLed(c, other, idle); err != nil {
				return err
			}
			if r, err = measure("of 1000", round+1); err != nil {
				return err
			}
			among = append(among, r)
			if err := drop(c, other); err != nil {
				return err
			}
		}
		fmt.Printf("  %.0f %% of what they do alone, the medians compared\n", 100*median(among).mbs()/median(alone).mbs())
		return nil
	})
}

// allLed waits until each partition of a topic has a leader.
func allLed(c *harness.Cluster, topic string, partitions int) error {
	led := 0
	err := harness.Eventually(2*time.Minute, func() bool {
		s, err := c.Nodes[0].Status()
		if err != nil {
			return false
		}
		led = 0
		for _, t := range s.Topics {
			for _, p := range t.Partitions {
				if t.Name == topic && p.Leader != "" {
					led++
				}
			}
		}
		return led == partitions
	})
	if err != nil {
		return fmt.Errorf("%d of %d partitions have a leader", led, partitions)
	}
	return nil
}

func (b *bench) smallBatches() error {
	program, err := harness.MeasuringProgram()
	if err != nil {
		return err
	}
	header()
	var figures []float64
	for _, v := range []struct {
		name string
		env  []string
	}{{"with the journal", nil}, {"one sync per group", []string{"TRIMARAN_TEST_JOURNAL=off"}}, {"no sync at all (not safe)", []string{"TRIMARAN_TEST_SYNC=off"}}} {
		err := b.with(b.diskDir, v.env, program, func(c *harness.Cluster) error {
			t, err := topic(c, "small", 100)
			if err != nil {
				return err
			}
			l := load{topic: t, partitions: 100, p: batch(1, false), conns: 10, inFlight: 100}
			r, err := b.median(c, ways(c)[0], l)
			if err != nil {
				return err
			}
			r.print(v.name)
			figures = append(figures, r.perSecond())
			l.perSecond = r.perSecond() / 2
			half, err := l.produce(c, ways(c)[0], b.window)
			if err != nil {
				return err
			}
			half.print("  at half load")
			return nil
		})
		if err != nil {
			return err
		}
	}
	fmt.Printf("  the journal gives %.2f times what a sync per group gives, and %.0f %% of no sync at all\n", figures[0]/figures[1], 100*figures[0]/figures[2])
	return nil
}

// besideBolt uses Produce v0, which both binaries know.
func (b *bench) besideBolt() error {
	program, err := harness.ProgramOf(b.against)
	if err != nil {
		fmt.Printf("  left out: %v\n", err)
		return nil
	}
	header()
	measure := func(name, program string) (out []result, err error) {
		err = b.with(b.fast(), nil, program, func(c *harness.Cluster) error {
			for _, size := range []int{1, 16 << 10} {
				t, err := topic(c, fmt.Sprintf("bolt-%d", size>>10), 1)
				if err != nil {
					return err
				}
				r, err := b.median(c, ways(c)[0], load{topic: t, partitions: 1, p: batch(size, true), conns: 1, inFlight: 64})
				if err != nil {
					return err
				}
				r.print(fmt.Sprintf("%s, %s batches", name, sizeName(max(size, 1<<10))))
				out = append(out, r)
			}
			return nil
		})
		return out, err
	}
	old, err := measure("raft-boltdb", program)
	if err != nil {
		return err
	}
	now, err := measure("this", "")
	if err != nil {
		return err
	}
	fmt.Printf("  CPU per MB of raft-boltdb's: 1 KB %.1f, 16 KB %.1f times this; MB/s of this: 1 KB %.1f, 16 KB %.1f times raft-boltdb's\n",
		old[0].cpuPerMB()/now[0].cpuPerMB(), old[1].cpuPerMB()/now[1].cpuPerMB(), now[0].mbs()/old[0].mbs(), now[1].mbs()/old[1].mbs())
	return nil
}

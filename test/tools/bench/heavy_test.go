package main

import (
	"os"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.RemoveBinaries()
	os.Exit(code)
}

// The measurements that write gigabytes, with some MB and without Kafka: their figures mean nothing
// here, but all of them are there.
func TestHeavyMeasurements(t *testing.T) {
	for _, part := range []struct {
		name string
		o    heavyOptions
		want []string
	}{
		{"compaction", heavyOptions{compaction: true, gb: 0.03, noKafka: true, rate: 4 << 20}, []string{
			"compaction/trimaran/mbs", "compaction/trimaran/cpu_ms_per_mb", "compaction/beside/1/full_slower_percent", "compaction/beside/3/third_slower_percent",
		}},
		{"tier", heavyOptions{tier: true, gb: 0.06}, []string{
			"tier/upload_cpu_ms_per_mb", "tier/restart_s", "tier/disk_mb", "tier/old_1_mbs", "tier/old_3_mbs", "tier/full/old/mbs", "tier/third/alone/tail_p99_ms",
		}},
	} {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			b := &bench{diskDir: t.TempDir(), options: options{window: 200 * time.Millisecond, heavyOptions: part.o}}
			b.turns = 1
			all := figures{}
			run := b.compactions
			if part.o.tier {
				run = b.tiers
			}
			aims, err := run(all)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range part.want {
				if _, ok := all[name]; !ok {
					t.Errorf("there is no figure %s", name)
				}
			}
			for _, a := range aims {
				if !a.known {
					t.Errorf("%s is not known", a.what)
				}
			}
		})
	}
}

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/test/harness"
)

// This file has what the two measurements share that write gigabytes: of compaction and of tiers.

// heavyOptions are theirs. -turns and -results are those of -versus.
type heavyOptions struct {
	compaction, tier bool
	gb               float64 // of keys and values, 10^9 bytes; 0: what the issue of each asks for
	keys             int     // 0: 100,000 for each GB
	noKafka          bool
	rate             int64 // --compaction-rate beside produce, bytes a second
}

func (o *heavyOptions) heavyFlags() {
	flag.BoolVar(&o.compaction, "compaction", false, "measure compaction, beside Kafka's log cleaner, and what it costs those who produce")
	flag.BoolVar(&o.tier, "tier", false, "measure a partition of which a twentieth is local")
	flag.Float64Var(&o.gb, "gb", 0, "with -compaction and -tier: GB that are written; 0: 10 and 20")
	flag.IntVar(&o.keys, "keys", 0, "with -compaction: different keys; 0: 100,000 for each GB")
	flag.Int64Var(&o.rate, "compaction-rate", 64<<20, "with -compaction: --compaction-rate of the nodes beside produce, in bytes a second; theirs when nothing is said")
	flag.BoolVar(&o.noKafka, "no-kafka", false, "with -compaction: without Kafka beside it")
}

func (o *heavyOptions) heavy() bool { return o.compaction || o.tier }

// figures are results by name, as -results keeps them.
type figures map[string]float64

// heavyParts runs what is asked for, and keeps its figures.
func (b *bench) heavyParts() error {
	all := figures{}
	if b.results != "" {
		text, err := os.ReadFile(b.results)
		if err == nil {
			err = json.Unmarshal(text, &all)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s: %w", b.results, err)
		}
	}
	var aims []aim
	for _, part := range []struct {
		asked bool
		run   func(figures) ([]aim, error)
	}{{b.compaction, b.compactions}, {b.tier, b.tiers}} {
		if !part.asked {
			continue
		}
		more, err := part.run(all)
		progress("")
		if err != nil {
			return err
		}
		aims = append(aims, more...)
	}
	fmt.Println("\nWhat is to be reached")
	for _, a := range aims {
		a.print()
	}
	fmt.Println("\nWhat the machine gives")
	if err := b.ceilings("at the end"); err != nil {
		return err
	}
	if b.results == "" {
		return nil
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(b.results, append(text, '\n'), 0o666)
}

// rounds is how often what is measured in turns is.
func (b *bench) rounds(standard int) int { return cmp.Or(b.turns, standard) }

// onTerminal says whether somebody may see progress.
var onTerminal = func() bool {
	info, err := os.Stderr.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}()

// progress shows how far something is, on a terminal alone, in place of what it showed before.
func progress(format string, args ...any) {
	if onTerminal {
		fmt.Fprintf(os.Stderr, "\r\x1b[K"+format, args...)
	}
}

// folder makes one on the disk that is measured, and says how to remove it.
func (b *bench) folder(name string) (dir string, remove func(), err error) {
	b.count++
	dir = filepath.Join(b.diskDir, fmt.Sprintf("%s-%d", name, b.count))
	return dir, func() { os.RemoveAll(dir) }, os.Mkdir(dir, 0o777)
}

// topicAdmin makes and alters topics of any system that speaks Kafka's protocol.
type topicAdmin struct {
	*kadm.Client
	client *kgo.Client
}

func newAdmin(seeds ...string) (*topicAdmin, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(seeds...))
	if err != nil {
		return nil, err
	}
	return &topicAdmin{kadm.NewClient(cl), cl}, nil
}

const adminPatience = time.Minute

// create makes a topic of one partition; pairs are names and values of its configuration.
func (a *topicAdmin) create(topic string, replicas int16, pairs ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), adminPatience)
	defer cancel()
	configs := map[string]*string{}
	for i := 0; i < len(pairs); i += 2 {
		configs[pairs[i]] = &pairs[i+1]
	}
	made, err := a.CreateTopics(ctx, 1, replicas, configs, topic)
	return errors.Join(err, made[topic].Err)
}

// alter sets configurations of a topic.
func (a *topicAdmin) alter(topic string, pairs ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), adminPatience)
	defer cancel()
	var configs []kadm.AlterConfig
	for i := 0; i < len(pairs); i += 2 {
		configs = append(configs, kadm.AlterConfig{Op: kadm.SetConfig, Name: pairs[i], Value: &pairs[i+1]})
	}
	altered, err := a.AlterTopicConfigs(ctx, configs, topic)
	for _, one := range altered {
		err = errors.Join(err, one.Err)
	}
	return err
}

// leader gives the address of who leads the topic's partition.
func (a *topicAdmin) leader(topic string) (addr string, err error) {
	last := errors.New("nothing asked")
	_ = harness.Eventually(adminPatience, func() bool {
		var m *kmsg.MetadataResponse
		if m, last = metadata(a.client, topic); last != nil {
			return false
		}
		for _, broker := range m.Brokers {
			if len(m.Topics) == 1 && len(m.Topics[0].Partitions) == 1 && m.Topics[0].ErrorCode == 0 && m.Topics[0].Partitions[0].Leader == broker.NodeID {
				addr = broker.Host + ":" + strconv.Itoa(int(broker.Port))
				return true
			}
		}
		last = fmt.Errorf("%s has no leader", topic)
		return false
	})
	if addr == "" {
		return "", last
	}
	return addr, nil
}

// cpuOf adds up what processes have used.
func cpuOf(all []*harness.Process) (sum time.Duration, err error) {
	for _, p := range all {
		one, err := p.CPUTime()
		if err != nil {
			return 0, err
		}
		sum += one
	}
	return sum, nil
}

// idleShare is what processes use while nobody asks anything of them, in cores.
func idleShare(all []*harness.Process, window time.Duration) (float64, error) {
	before, err := cpuOf(all)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	time.Sleep(window)
	after, err := cpuOf(all)
	return (after - before).Seconds() / time.Since(began).Seconds(), err
}

// perMB is a time for each MB, in ms.
func perMB(cpu time.Duration, bytes float64) float64 { return cpu.Seconds() * 1e3 / (bytes / 1e6) }

// cpuOfSelf is what f takes of this process's processor time.
func cpuOfSelf(f func() error) (time.Duration, error) {
	before := selfCPU()
	err := f()
	return selfCPU() - before, err
}

// together adds up windows.
func together(all []result) (sum result) {
	for _, r := range all {
		sum.bytes, sum.records, sum.took = sum.bytes+r.bytes, sum.records+r.records, sum.took+r.took
		sum.used.cpu, sum.used.wrote = sum.used.cpu+r.used.cpu, sum.used.wrote+r.used.wrote
		sum.latency = slices.Concat(sum.latency, r.latency)
	}
	return sum
}

// spread says between which MB/s windows were.
func spread(all []result) string {
	least, most := all[0].mbs(), all[0].mbs()
	for _, r := range all {
		least, most = min(least, r.mbs()), max(most, r.mbs())
	}
	return fmt.Sprintf("%.0f to %.0f", least, most)
}

// slower is by how many percent a figure is below another.
func slower(now, before float64) float64 { return 100 * (1 - now/before) }

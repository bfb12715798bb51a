package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/fsm"
)

// storageOptions is what the flags say of the partitions' logs.
type storageOptions struct {
	topicDefaults     map[string]string // topic configurations that were given, Kafka's names
	retentionInterval time.Duration
	maxDiskShare      float64 // 0: off
	catchUpRate       int64   // bytes a second
	scrubRate         int64   // bytes a second; negative: off
	compactionRate    int64   // bytes a second; negative: no bound
	compactionMemory  int64   // bytes
}

// topicFlags are the broker configurations of Kafka that are the defaults of a
// topic's, with their names there (KafkaConfig, LogConfig).
var topicFlags = []struct{ flag, topic, usage string }{
	{"log-retention-ms", "retention.ms", "`ms` after which records are deleted, segment by segment; -1: never"},
	{"log-retention-bytes", "retention.bytes", "`bytes` that a partition may have before its oldest segments are deleted; -1: any number"},
	{"log-segment-bytes", "segment.bytes", "`bytes` of a segment file"},
	{"log-roll-ms", "segment.ms", "`ms` after which the next record begins a new segment"},
	{"log-message-timestamp-after-max-ms", "message.timestamp.after.max.ms", "`ms` that the time of a record may be ahead of the clock"},
	{"log-message-timestamp-before-max-ms", "message.timestamp.before.max.ms", "`ms` that the time of a record may be behind the clock"},
	{"message-max-bytes", "max.message.bytes", "`bytes` of the largest record batch taken"},
}

func addStorageFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	for _, t := range topicFlags {
		config, _ := fsm.LookupConfig(t.topic)
		standard, _ := strconv.ParseInt(config.Default, 10, 64)
		f.Int64(t.flag, standard, t.usage+"; of topics that do not set "+t.topic)
	}
	f.Duration("log-retention-check-interval", 30*time.Second, "`time` between two looks for what may be deleted")
	f.Float64("max-disk-share", 0, "`share` of the disk, 0 to 1, above which the oldest segments are deleted whatever retention says; 0: never")
	f.Var(newByteSize(100<<20), "catch-up-rate", "`bytes` a second, such as 50MB, that this node copies from others for replicas that are far behind")
	f.Var(newByteSize(4<<20), "scrub-rate", "`bytes` a second, such as 4MiB, that this node reads to look for damage; 0: never")
	f.Var(newByteSize(64<<20), "compaction-rate", "`bytes` a second, such as 50MB, that this node reads and writes to compact topics; 0: no bound")
	f.Var(newByteSize(128<<20), "compaction-memory", "`bytes`, such as 64MiB, for the keys of a partition that is compacted, 24 each; with more keys it takes several rounds")
}

// storageOf reads what addStorageFlags added.
func storageOf(cmd *cobra.Command) (storageOptions, error) {
	f := cmd.Flags()
	o := storageOptions{topicDefaults: map[string]string{}}
	for _, t := range topicFlags {
		if !f.Changed(t.flag) {
			continue
		}
		value := f.Lookup(t.flag).Value.String()
		if err := fsm.CheckConfigs(map[string]string{t.topic: value}); err != nil {
			return o, usagef("--%s: %v", t.flag, err)
		}
		o.topicDefaults[t.topic] = value
	}
	if o.retentionInterval, _ = f.GetDuration("log-retention-check-interval"); o.retentionInterval <= 0 {
		return o, usagef("--log-retention-check-interval %v: want more than 0", o.retentionInterval)
	}
	o.maxDiskShare, _ = f.GetFloat64("max-disk-share")
	if !(o.maxDiskShare >= 0 && o.maxDiskShare <= 1) { // also not NaN
		return o, usagef("--max-disk-share %v: want 0 to 1", o.maxDiskShare)
	}
	if o.catchUpRate = byteSizeOf(cmd, "catch-up-rate"); o.catchUpRate <= 0 {
		return o, usagef("--catch-up-rate: want more than 0")
	}
	if o.scrubRate = byteSizeOf(cmd, "scrub-rate"); o.scrubRate == 0 {
		o.scrubRate = -1
	}
	if o.compactionRate = byteSizeOf(cmd, "compaction-rate"); o.compactionRate == 0 {
		o.compactionRate = -1
	}
	if o.compactionMemory = byteSizeOf(cmd, "compaction-memory"); o.compactionMemory < 1<<20 {
		return o, usagef("--compaction-memory: want at least 1MiB")
	}
	return o, nil
}

// byteSize is a flag for a number of bytes, with or without a unit.
type byteSize int64

func newByteSize(standard int64) *byteSize { b := byteSize(standard); return &b }

func byteSizeOf(cmd *cobra.Command, name string) int64 {
	b, _ := cmd.Flags().Lookup(name).Value.(*byteSize)
	return int64(*b)
}

// byteUnits are powers of 1000 and 1024 as IEC 80000-13 names them. The longest
// that fits counts.
var byteUnits = []struct {
	name string
	size int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40}, {"B", 1},
}

// String implements pflag.Value.
func (b *byteSize) String() string {
	for _, u := range []int{3, 2, 1, 0} {
		if size := byteUnits[u].size; int64(*b) >= size && int64(*b)%size == 0 {
			return fmt.Sprint(int64(*b)/size, byteUnits[u].name)
		}
	}
	return strconv.FormatInt(int64(*b), 10)
}

// Type implements pflag.Value.
func (*byteSize) Type() string { return "bytes" }

// Set implements pflag.Value.
func (b *byteSize) Set(text string) error {
	number, unit := strings.TrimSpace(text), int64(1)
	for _, u := range byteUnits {
		if n := len(number) - len(u.name); n > 0 && strings.EqualFold(number[n:], u.name) {
			number, unit = strings.TrimSpace(number[:n]), u.size
			break
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || !(f >= 0) || f*float64(unit) >= math.MaxInt64 {
		return fmt.Errorf("%q is no number of bytes: want one such as 1048576, 50MB or 4MiB", text)
	}
	*b = byteSize(f * float64(unit))
	return nil
}

// showBytes gives a number of bytes to three digits, in units of 1024.
func showBytes(n int64) string {
	for _, u := range []int{3, 2, 1, 0} {
		if size := byteUnits[u].size; n >= size {
			return fmt.Sprintf("%.3g %s", min(float64(n)/float64(size), 1e9), byteUnits[u].name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

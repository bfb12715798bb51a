package fsm

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ConfigType says how a configuration's value is written.
type ConfigType uint8

// The types, with Kafka's names (org.apache.kafka.common.config.ConfigDef.Type).
const (
	ConfigInt     ConfigType = iota + 1 // 32 bits, signed
	ConfigLong                          // 64 bits, signed
	ConfigDouble                        // decimal
	ConfigBoolean                       // true or false
	ConfigString                        // one of Values
	ConfigList                          // some of Values, separated by commas
)

// String gives Kafka's name of the type.
func (t ConfigType) String() string {
	return [...]string{"", "INT", "LONG", "DOUBLE", "BOOLEAN", "STRING", "LIST"}[t]
}

// Config is one configuration that a topic may carry.
type Config struct {
	Name    string
	Type    ConfigType
	Default string
	Min     float64  // smallest value of a number
	Max     float64  // largest value of a number; 0: the type's
	Values  []string // what a STRING or LIST may say; for a BOOLEAN nil: both
	// Effect reports whether the value changes anything. One without effect is
	// stored and shown, and Note says what happens instead.
	Effect bool
	Note   string
}

const (
	day  = 24 * 60 * 60 * 1000 // ms
	noMS = "9223372036854775807"
)

// DefaultMaxMessageBytes is Kafka's default of max.message.bytes: 1 MiB and the
// overhead of a record set.
const DefaultMaxMessageBytes = 1048588

// configs is the table of topic configurations: names, types, defaults and
// bounds are Kafka's (org.apache.kafka.storage.internals.log.LogConfig). Sorted.
var configs = []Config{
	{Name: "cleanup.policy", Type: ConfigList, Default: "delete", Values: []string{"compact", "delete"}, Note: "delete takes effect; nothing is compacted yet"},
	{Name: "compression.type", Type: ConfigString, Default: "producer", Values: []string{"gzip", "lz4", "producer", "snappy", "uncompressed", "zstd"}, Note: "stored; batches keep the producer's codec"},
	{Name: "delete.retention.ms", Type: ConfigLong, Default: strconv.Itoa(day), Note: "stored; nothing is compacted yet"},
	{Name: "file.delete.delay.ms", Type: ConfigLong, Default: "60000", Note: "stored; files of a deleted topic go at once"},
	{Name: "flush.messages", Type: ConfigLong, Default: noMS, Min: 1, Note: "stored; every batch is flushed before it is acknowledged"},
	{Name: "flush.ms", Type: ConfigLong, Default: noMS, Note: "stored; every batch is flushed before it is acknowledged"},
	{Name: "index.interval.bytes", Type: ConfigInt, Default: "4096", Note: "stored; the index has its own density"},
	{Name: "max.compaction.lag.ms", Type: ConfigLong, Default: noMS, Min: 1, Note: "stored; nothing is compacted yet"},
	{Name: "max.message.bytes", Type: ConfigInt, Default: strconv.Itoa(DefaultMaxMessageBytes), Effect: true},
	{Name: "message.timestamp.after.max.ms", Type: ConfigLong, Default: noMS, Note: "stored; timestamps are not bounded"},
	{Name: "message.timestamp.before.max.ms", Type: ConfigLong, Default: noMS, Note: "stored; timestamps are not bounded"},
	{Name: "message.timestamp.difference.max.ms", Type: ConfigLong, Default: noMS, Note: "stored; timestamps are not bounded"},
	{Name: "message.timestamp.type", Type: ConfigString, Default: "CreateTime", Values: []string{"CreateTime", "LogAppendTime"}, Effect: true},
	{Name: "min.cleanable.dirty.ratio", Type: ConfigDouble, Default: "0.5", Max: 1, Note: "stored; nothing is compacted yet"},
	{Name: "min.compaction.lag.ms", Type: ConfigLong, Default: "0", Note: "stored; nothing is compacted yet"},
	{Name: "min.insync.replicas", Type: ConfigInt, Default: "1", Min: 1, Note: "stored; a majority of the replicas always has a record before it is acknowledged"},
	{Name: "preallocate", Type: ConfigBoolean, Default: "false", Note: "stored; files are laid out as the log decides"},
	{Name: "retention.bytes", Type: ConfigLong, Default: "-1", Min: -1, Effect: true},
	{Name: "retention.ms", Type: ConfigLong, Default: strconv.Itoa(7 * day), Min: -1, Effect: true},
	{Name: "segment.bytes", Type: ConfigInt, Default: strconv.Itoa(1 << 30), Min: 14, Effect: true},
	{Name: "segment.index.bytes", Type: ConfigInt, Default: strconv.Itoa(10 << 20), Min: 4, Note: "stored; the index has its own size"},
	{Name: "segment.jitter.ms", Type: ConfigLong, Default: "0", Note: "stored; segments end by size alone"},
	{Name: "segment.ms", Type: ConfigLong, Default: strconv.Itoa(7 * day), Min: 1, Effect: true},
	{Name: "unclean.leader.election.enable", Type: ConfigBoolean, Default: "false", Values: []string{"false"}, Note: "a replica that lacks acknowledged records is never elected"},
}

// Configs gives the table of the configurations a topic may carry, sorted by name.
func Configs() []Config { return slices.Clone(configs) }

// LookupConfig finds a configuration by name.
func LookupConfig(name string) (Config, bool) {
	i, ok := slices.BinarySearchFunc(configs, name, func(c Config, name string) int { return strings.Compare(c.Name, name) })
	if !ok {
		return Config{}, false
	}
	return configs[i], true
}

// CheckConfigs reports whether every name is known and every value allowed. The
// error is ErrInvalidConfig and tells of the first that is not, by name.
func CheckConfigs(values map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		c, ok := LookupConfig(name)
		if !ok {
			return fmt.Errorf("%w: no configuration is named %q", ErrInvalidConfig, name)
		}
		if err := c.Check(values[name]); err != nil {
			return err
		}
	}
	return nil
}

// Check reports whether the value is allowed. As in Kafka, space around it does
// not count. The error is ErrInvalidConfig.
func (c Config) Check(value string) error {
	value = strings.TrimSpace(value)
	bad := func(want string) error {
		return fmt.Errorf("%w: %s=%q, want %s", ErrInvalidConfig, c.Name, value, want)
	}
	switch c.Type {
	case ConfigInt, ConfigLong:
		bits := 64
		if c.Type == ConfigInt {
			bits = 32
		}
		n, err := strconv.ParseInt(value, 10, bits)
		if err != nil {
			return bad(fmt.Sprintf("a whole number of %d bits", bits))
		}
		if n < int64(c.Min) {
			return bad(fmt.Sprintf("%d or more", int64(c.Min)))
		}
	case ConfigDouble:
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || math.IsNaN(f) || f < c.Min || f > c.Max {
			return bad(fmt.Sprintf("a number from %g to %g", c.Min, c.Max))
		}
	case ConfigBoolean:
		value = strings.ToLower(value)
		if value != "true" && value != "false" {
			return bad("true or false")
		}
		if c.Values != nil && !slices.Contains(c.Values, value) {
			return bad(strings.Join(c.Values, " or ") + ": " + c.Note)
		}
	case ConfigString:
		if !slices.Contains(c.Values, value) {
			return bad("one of " + strings.Join(c.Values, ", "))
		}
	case ConfigList:
		for part := range strings.SplitSeq(value, ",") {
			if !slices.Contains(c.Values, strings.TrimSpace(part)) {
				return bad("some of " + strings.Join(c.Values, ", "))
			}
		}
	}
	return nil
}

// Config gives the value of a configuration for the topic: what was set, else
// the default; "" for an unknown name.
func (t *Topic) Config(name string) string {
	if value, ok := t.Configs[name]; ok {
		return strings.TrimSpace(value)
	}
	c, _ := LookupConfig(name)
	return c.Default
}

// ConfigOr is Config with a node's own defaults, by name, between the topic's
// settings and Kafka's defaults.
func (t *Topic) ConfigOr(defaults map[string]string, name string) string {
	if _, own := t.Configs[name]; !own {
		if value, ok := defaults[name]; ok {
			return strings.TrimSpace(value)
		}
	}
	return t.Config(name)
}

// MaxMessageBytes is the largest record batch, in bytes, that the topic takes;
// defaults are as in ConfigOr, nil for none.
func (t *Topic) MaxMessageBytes(defaults map[string]string) int {
	n, err := strconv.Atoi(t.ConfigOr(defaults, "max.message.bytes"))
	if err != nil || n < 0 {
		return DefaultMaxMessageBytes
	}
	return n
}

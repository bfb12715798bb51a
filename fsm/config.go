package fsm

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/trimaran-io/trimaran/outcome"
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
	Values  []string // what a STRING or LIST may say, nil: anything; for a BOOLEAN nil: both
	// Effect reports whether the value changes anything. One without effect is
	// stored and shown, and Note says why that does no harm.
	Effect bool
	Note   string
	// Synonym is the broker's configuration that is the default of topics in Kafka;
	// "" if it has the same name.
	Synonym string
}

// BrokerName is the name that the configuration has as a default of topics, among
// those of a broker (org.apache.kafka.server.config.ServerTopicConfigSynonyms).
func (c Config) BrokerName() string {
	if c.Synonym != "" {
		return c.Synonym
	}
	return c.Name
}

const (
	day  = 24 * 60 * 60 * 1000 // ms
	noMS = "9223372036854775807"
)

// DefaultMaxMessageBytes is Kafka's default of max.message.bytes: 1 MiB and the
// overhead of a record set.
const DefaultMaxMessageBytes = 1048588

// Why a configuration has no effect, and does no harm.
const (
	noRecompress = "batches keep the producer's codec, which every consumer reads"
	noThrottle   = "copying is throttled by the node, not by the topic"
	alwaysFlush  = "every batch is flushed before it is acknowledged, whatever the interval"
)

// configs is the table of topic configurations: names, types, defaults and
// bounds are Kafka's (org.apache.kafka.storage.internals.log.LogConfig). Sorted.
var configs = []Config{
	{Name: "cleanup.policy", Type: ConfigList, Default: "delete", Values: []string{"compact", "delete"}, Effect: true, Synonym: "log.cleanup.policy", Note: "all four are obeyed; the segments that are compacted are those that the partition's leader has closed when it decides"},
	{Name: "compression.gzip.level", Type: ConfigInt, Default: "-1", Min: -1, Max: 9, Note: noRecompress},
	{Name: "compression.lz4.level", Type: ConfigInt, Default: "9", Min: 1, Max: 17, Note: noRecompress},
	{Name: "compression.type", Type: ConfigString, Default: "producer", Values: []string{"gzip", "lz4", "producer", "snappy", "uncompressed", "zstd"}, Note: noRecompress},
	{Name: "compression.zstd.level", Type: ConfigInt, Default: "3", Min: -131072, Max: 22, Note: noRecompress},
	{Name: "delete.retention.ms", Type: ConfigLong, Default: strconv.Itoa(day), Synonym: "log.cleaner.delete.retention.ms", Effect: true, Note: "counts from when the leader had carried out the round that left the tombstone clean"},
	{Name: "file.delete.delay.ms", Type: ConfigLong, Default: "60000", Synonym: "log.segment.delete.delay.ms", Note: "files of a deleted topic go at once"},
	{Name: "flush.messages", Type: ConfigLong, Default: noMS, Min: 1, Synonym: "log.flush.interval.messages", Note: alwaysFlush},
	{Name: "flush.ms", Type: ConfigLong, Default: noMS, Synonym: "log.flush.interval.ms", Note: alwaysFlush},
	{Name: "follower.replication.throttled.replicas", Type: ConfigList, Note: noThrottle},
	{Name: "index.interval.bytes", Type: ConfigInt, Default: "4096", Synonym: "log.index.interval.bytes", Note: "the index has its own density"},
	{Name: "leader.replication.throttled.replicas", Type: ConfigList, Note: noThrottle},
	{Name: "local.retention.bytes", Type: ConfigLong, Default: "-2", Min: -2, Synonym: "log.local.retention.bytes", Effect: true, Note: "of a topic with a tier: what replicas keep is decided by the partition's leader, by whole segments"},
	{Name: "local.retention.ms", Type: ConfigLong, Default: "-2", Min: -2, Synonym: "log.local.retention.ms", Effect: true, Note: "of a topic with a tier: what replicas keep is decided by the partition's leader, by whole segments"},
	{Name: "max.compaction.lag.ms", Type: ConfigLong, Default: noMS, Min: 1, Synonym: "log.cleaner.max.compaction.lag.ms", Effect: true, Note: "also where nothing is written any more"},
	{Name: "max.message.bytes", Type: ConfigInt, Default: strconv.Itoa(DefaultMaxMessageBytes), Synonym: "message.max.bytes", Effect: true},
	{Name: "message.downconversion.enable", Type: ConfigBoolean, Default: "true", Synonym: "log.message.downconversion.enable", Note: "old consumers are always served"},
	{Name: "message.format.version", Type: ConfigString, Default: "3.0-IV1", Synonym: "log.message.format.version", Note: "records are kept in the newest format, and served in the one that the client knows"},
	{Name: "message.timestamp.after.max.ms", Type: ConfigLong, Default: strconv.Itoa(60 * 60 * 1000), Synonym: "log.message.timestamp.after.max.ms", Effect: true},
	{Name: "message.timestamp.before.max.ms", Type: ConfigLong, Default: noMS, Synonym: "log.message.timestamp.before.max.ms", Effect: true},
	{Name: "message.timestamp.difference.max.ms", Type: ConfigLong, Default: noMS, Synonym: "log.message.timestamp.difference.max.ms", Effect: true, Note: "counts in place of those of the two newer configurations that are not set (KIP-937)"},
	{Name: "message.timestamp.type", Type: ConfigString, Default: "CreateTime", Values: []string{"CreateTime", "LogAppendTime"}, Synonym: "log.message.timestamp.type", Effect: true},
	{Name: "min.cleanable.dirty.ratio", Type: ConfigDouble, Default: "0.5", Max: 1, Synonym: "log.cleaner.min.cleanable.ratio", Effect: true},
	{Name: "min.compaction.lag.ms", Type: ConfigLong, Default: "0", Synonym: "log.cleaner.min.compaction.lag.ms", Effect: true},
	{Name: "min.insync.replicas", Type: ConfigInt, Default: "1", Min: 1, Note: "a majority of the replicas always has a record before it is acknowledged; more than that is refused"},
	{Name: "preallocate", Type: ConfigBoolean, Default: "false", Synonym: "log.preallocate", Note: "files are laid out as the log decides"},
	{Name: "remote.log.copy.disable", Type: ConfigBoolean, Default: "false", Effect: true, Note: "nothing more goes to the tier; what is there stays and is read"},
	{Name: "remote.log.delete.on.disable", Type: ConfigBoolean, Default: "false", Effect: true, Note: "with remote.storage.enable=false the log starts where all replicas have it, and what is in the tier is deleted"},
	{Name: "remote.storage.enable", Type: ConfigBoolean, Default: "false", Effect: true, Note: "the nodes must have been told of a store (--tier-to); topics that are compacted may have a tier, too"},
	{Name: "retention.bytes", Type: ConfigLong, Default: "-1", Min: -1, Synonym: "log.retention.bytes", Effect: true},
	{Name: "retention.ms", Type: ConfigLong, Default: strconv.Itoa(7 * day), Min: -1, Synonym: "log.retention.ms", Effect: true},
	{Name: "segment.bytes", Type: ConfigInt, Default: strconv.Itoa(1 << 30), Min: 14, Synonym: "log.segment.bytes", Effect: true},
	{Name: "segment.index.bytes", Type: ConfigInt, Default: strconv.Itoa(10 << 20), Min: 4, Synonym: "log.index.size.max.bytes", Note: "the index has its own size"},
	{Name: "segment.jitter.ms", Type: ConfigLong, Default: "0", Synonym: "log.roll.jitter.ms", Note: "segments end at the age that is set"},
	{Name: "segment.ms", Type: ConfigLong, Default: strconv.Itoa(7 * day), Min: 1, Synonym: "log.roll.ms", Effect: true},
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
			return fmt.Errorf("%w: no configuration is named %q", outcome.ErrInvalidConfig, name)
		}
		if err := c.Check(values[name]); err != nil {
			return err
		}
	}
	return nil
}

// CheckWish looks at what a topic is newly to have, set before and wanted now, where
// CheckConfigs is not strict enough. That one decides in the log, by rules that all
// programs of a cluster share; this one is asked before. factor is the number of the topic's
// replicas. The error is ErrInvalidConfig.
func CheckWish(set, wanted map[string]string, factor int) error {
	topic, old := Topic{Configs: wanted}, Topic{Configs: set}
	if old.Tiered(nil) && !topic.Tiered(nil) && !isTrue(topic.Config("remote.log.delete.on.disable")) {
		return fmt.Errorf("%w: the topic has a tier: set remote.log.delete.on.disable=true, too, to have what is there deleted, or remote.log.copy.disable=true in place of both", outcome.ErrInvalidConfig)
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		value := strings.TrimSpace(wanted[name])
		if old, was := set[name]; was && strings.TrimSpace(old) == value {
			continue
		}
		bad := func(why string) error { return fmt.Errorf("%w: %s=%q, %s", outcome.ErrInvalidConfig, name, value, why) }
		switch name {
		case "compression.gzip.level":
			if value == "0" {
				return bad("want -1 or 1 to 9")
			}
		case "follower.replication.throttled.replicas", "leader.replication.throttled.replicas":
			if !isThrottled(strings.ReplaceAll(value, " ", "")) {
				return bad("want * or partition:broker, partition:broker …")
			}
		case "message.format.version":
			if !isFormatVersion(value) {
				return bad("want a version of Kafka")
			}
		case "max.compaction.lag.ms", "min.compaction.lag.ms":
			least, _ := strconv.ParseInt(topic.Config("min.compaction.lag.ms"), 10, 64)
			most, _ := strconv.ParseInt(topic.Config("max.compaction.lag.ms"), 10, 64)
			if least > most {
				return bad("and min.compaction.lag.ms is larger than max.compaction.lag.ms")
			}
		case "min.insync.replicas":
			if n, _ := strconv.Atoi(value); n > factor/2+1 {
				return bad(fmt.Sprintf("a record is acknowledged when a majority has it, %d of %d replicas, and cannot wait for more", factor/2+1, factor))
			}
		}
	}
	if topic.Tiered(nil) { // as in Kafka, which lets other topics have what they do not use
		for _, name := range []string{"retention.bytes", "retention.ms"} {
			if why := topic.localRetention(name); why != "" {
				return fmt.Errorf("%w: local.%s=%q, %s", outcome.ErrInvalidConfig, name, topic.Config("local."+name), why)
			}
		}
	}
	return nil
}

// isThrottled reports whether a list of throttled replicas is "*", or pairs of numbers
// (org.apache.kafka.server.config.ReplicationConfigs).
func isThrottled(list string) bool {
	if list == "" || list == "*" {
		return true
	}
	for pair := range strings.SplitSeq(list, ",") {
		partition, broker, ok := strings.Cut(pair, ":")
		if !ok || !isNumber(partition) || !isNumber(broker) {
			return false
		}
	}
	return true
}

// isFormatVersion reports whether the text may be a version of Kafka's: 0.10.2, 3.0-IV1.
func isFormatVersion(text string) bool {
	version, internal, has := strings.Cut(text, "-IV")
	parts := strings.Split(version, ".")
	return len(parts) > 1 && !slices.ContainsFunc(parts, func(p string) bool { return !isNumber(p) }) && (!has || isNumber(internal))
}

// isNumber reports whether the text is digits.
func isNumber(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}

// Check reports whether the value is allowed. As in Kafka, space around it does
// not count. The error is ErrInvalidConfig.
func (c Config) Check(value string) error {
	value = strings.TrimSpace(value)
	bad := func(want string) error {
		return fmt.Errorf("%w: %s=%q, want %s", outcome.ErrInvalidConfig, c.Name, value, want)
	}
	if len(value) > MaxConfigValue {
		return fmt.Errorf("%w: %s has a value of %d bytes, want at most %d", outcome.ErrInvalidConfig, c.Name, len(value), MaxConfigValue)
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
		if c.Max != 0 && n > int64(c.Max) {
			return bad(fmt.Sprintf("%d or less", int64(c.Max)))
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
		if c.Values != nil && !slices.Contains(c.Values, value) {
			return bad("one of " + strings.Join(c.Values, ", "))
		}
	case ConfigList:
		if value == "" {
			return nil // none of what could stand in it; but see Topics.checkLists
		}
		for part := range strings.SplitSeq(value, ",") {
			if c.Values != nil && !slices.Contains(c.Values, strings.TrimSpace(part)) {
				return bad("some of " + strings.Join(c.Values, ", "))
			}
		}
	}
	return nil
}

// checkLists reports whether lists that may only have certain values, and have none, are allowed
// yet: programs below level 3 know no empty ones. The error is ErrInvalidConfig.
func (t *Topics) checkLists(values map[string]string) error {
	if t.FeatureLevel() >= 3 {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if c, ok := LookupConfig(name); ok && c.Type == ConfigList && c.Values != nil && strings.TrimSpace(values[name]) == "" {
			return fmt.Errorf("%w: %s is empty, which needs level 3 on all nodes, and the cluster is at %d", outcome.ErrInvalidConfig, name, t.FeatureLevel())
		}
	}
	return nil
}

// MaxConfigValue bounds a value, in bytes: it is in every node's memory.
const MaxConfigValue = 32 << 10

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

// Compacted reports whether the topic's cleanup.policy has compact, so that its records
// need keys; defaults are as in ConfigOr.
func (t *Topic) Compacted(defaults map[string]string) bool {
	return slices.Contains(splitList(t.ConfigOr(defaults, "cleanup.policy")), "compact")
}

// Tiered reports whether the topic's records go to a tier (remote.storage.enable); defaults are as
// in ConfigOr.
func (t *Topic) Tiered(defaults map[string]string) bool {
	return isTrue(t.ConfigOr(defaults, "remote.storage.enable"))
}

func isTrue(value string) bool { return strings.EqualFold(strings.TrimSpace(value), "true") }

// localRetention says what is wrong with what the replicas of a topic keep of a retention, "" if
// nothing is.
func (t *Topic) localRetention(name string) string {
	local, _ := strconv.ParseInt(strings.TrimSpace(t.Config("local."+name)), 10, 64)
	all, _ := strconv.ParseInt(strings.TrimSpace(t.Config(name)), 10, 64)
	switch {
	case local == -2 || all == -1:
		return ""
	case local == -1:
		return fmt.Sprintf("and %s is %d: no more than that can be kept", name, all)
	case local > all:
		return fmt.Sprintf("more than %s, which is %d", name, all)
	}
	return ""
}

// enablesTier reports whether the command sets remote.storage.enable to true, which programs below
// LevelTiers do not know.
func (c *CatalogCommand) enablesTier() bool {
	const name = "remote.storage.enable"
	switch {
	case c.CreateTopic != nil:
		return isTrue(c.CreateTopic.Topic.Configs[name])
	case c.AlterConfigs != nil:
		return slices.ContainsFunc(c.AlterConfigs.Changes, func(change ConfigChange) bool { return change.Name == name && isTrue(change.Value) })
	}
	return false
}

// TimestampBounds are the first and the last timestamp that a record may bring which is
// produced now; all in ms since epoch, defaults as in ConfigOr.
func (t *Topic) TimestampBounds(defaults map[string]string, now int64) (earliest, latest int64) {
	before, after := t.timeBound(defaults, "message.timestamp.before.max.ms"), t.timeBound(defaults, "message.timestamp.after.max.ms")
	// Neither is negative, but the clock may be anything.
	if earliest = now - before; earliest > now {
		earliest = math.MinInt64
	}
	if latest = now + after; latest < now {
		latest = math.MaxInt64
	}
	return earliest, latest
}

// TimestampAhead is how far ahead of the clock, in ms, the topic takes a record.
func (t *Topic) TimestampAhead(defaults map[string]string) int64 {
	return t.timeBound(defaults, "message.timestamp.after.max.ms")
}

// timeBound gives one of the two bounds of KIP-937. Where it is not set and the one is
// from before that KIP, which was for both, that counts, as in Kafka 3.6 to 3.9
// (org.apache.kafka.storage.internals.log.LogConfig).
func (t *Topic) timeBound(defaults map[string]string, name string) int64 {
	const old = "message.timestamp.difference.max.ms"
	set := func(m map[string]string, name string) (string, bool) {
		v, ok := m[name]
		return strings.TrimSpace(v), ok
	}
	text := t.ConfigOr(defaults, name)
	_, own := set(t.Configs, name)
	_, given := set(defaults, name)
	if v, ok := set(t.Configs, old); ok && !own {
		text = v
	} else if v, ok := set(defaults, old); ok && !own && !given {
		text = v
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return math.MaxInt64
	}
	return n
}

// WriteConfigTable writes the table of configurations as docs/protocol.md has it.
func WriteConfigTable(w io.Writer) error {
	if _, err := fmt.Fprint(w, "| configuration | default | here | |\n|---|---|---|---|\n"); err != nil {
		return err
	}
	for _, c := range configs {
		verdict := "no effect"
		switch {
		case c.Effect:
			verdict = "obeyed"
		case c.Type == ConfigBoolean && c.Values != nil:
			verdict = "others refused"
		}
		if _, err := fmt.Fprintf(w, "| `%s` | %s | %s | %s |\n", c.Name, c.Default, verdict, c.Note); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprint(w, "\n| of the broker | default | |\n|---|---|---|\n"); err != nil {
		return err
	}
	for _, c := range brokerConfigs {
		if _, err := fmt.Fprintf(w, "| `%s` | %s | %s |\n", c.Name, c.Default, c.Note); err != nil {
			return err
		}
	}
	return nil
}

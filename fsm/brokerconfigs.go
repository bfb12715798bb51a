package fsm

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/trimaran-io/trimaran/outcome"
)

// brokerConfigs is the table of those of a broker's configurations that clients may change: they
// are for machinery of Kafka's that is not here, so whatever they say holds. They are kept and
// shown, since tools read back what they have set. Everything else of a broker belongs to
// the nodes, which are configured where they run. Names, types, defaults and bounds are Kafka's
// (kafka.server.DynamicBrokerConfig). Sorted.
var brokerConfigs = []Config{
	{Name: "background.threads", Type: ConfigInt, Default: "10", Min: 1, Note: noThreads},
	{Name: "follower.replication.throttled.rate", Type: ConfigLong, Default: noMS, Note: noReassignment},
	{Name: "leader.replication.throttled.rate", Type: ConfigLong, Default: noMS, Note: noReassignment},
	{Name: "log.cleaner.backoff.ms", Type: ConfigLong, Default: "15000", Note: noCleaner},
	{Name: "log.cleaner.dedupe.buffer.size", Type: ConfigLong, Default: "134217728", Note: noCleaner},
	{Name: "log.cleaner.io.buffer.load.factor", Type: ConfigDouble, Default: "0.9", Max: 1, Note: noCleaner},
	{Name: "log.cleaner.io.buffer.size", Type: ConfigInt, Default: "524288", Note: noCleaner},
	{Name: "log.cleaner.io.max.bytes.per.second", Type: ConfigDouble, Default: "1.7976931348623157E308", Max: 1.7976931348623157e308, Note: noCleaner},
	{Name: "log.cleaner.threads", Type: ConfigInt, Default: "1", Note: noCleaner},
	{Name: "num.io.threads", Type: ConfigInt, Default: "8", Min: 1, Note: noThreads},
	{Name: "num.network.threads", Type: ConfigInt, Default: "3", Min: 1, Note: noThreads},
	{Name: "num.recovery.threads.per.data.dir", Type: ConfigInt, Default: "2", Min: 1, Note: noThreads},
	{Name: "num.replica.fetchers", Type: ConfigInt, Default: "1", Min: 1, Note: noThreads},
	{Name: "replica.alter.log.dirs.io.max.bytes.per.second", Type: ConfigLong, Default: noMS, Note: noReassignment},
}

const (
	noThreads      = "without effect; there are no pools of threads to size"
	noReassignment = "without effect; clients move no replicas that it could slow down, and what nodes copy is bounded by --catch-up-rate"
	noCleaner      = "without effect; nodes compact topics within what --compaction-rate and --compaction-memory say"
)

// BrokerConfigs gives the table of the broker's configurations that can be altered, sorted by name.
func BrokerConfigs() []Config { return slices.Clone(brokerConfigs) }

// LookupBrokerConfig finds one of them by name. The error is ErrInvalidConfig.
func LookupBrokerConfig(name string) (Config, error) {
	i, ok := slices.BinarySearchFunc(brokerConfigs, name, func(c Config, name string) int { return strings.Compare(c.Name, name) })
	if !ok {
		return Config{}, fmt.Errorf("%w: %q of the broker cannot be altered", outcome.ErrInvalidConfig, name)
	}
	return brokerConfigs[i], nil
}

// AlterBrokerConfigs changes what was set for the broker. Level 3.
type AlterBrokerConfigs struct {
	// All means the default of all brokers, which counts where the one broker has none of its own.
	All     bool           `json:"all,omitempty"`
	Replace bool           `json:"replace,omitempty"` // as in AlterConfigs
	Changes []ConfigChange `json:"changes,omitempty"`
}

// BrokerSettings are what was set for the broker (false) and as the default of all brokers (true).
type BrokerSettings map[bool]map[string]string

// Apply gives what is set after the changes, as AlterConfigs.Apply does for topics.
func (a *AlterBrokerConfigs) Apply(old map[string]string) (map[string]string, error) {
	return applyChanges(a.Replace, a.Changes, old, LookupBrokerConfig)
}

// BrokerConfigs gives what was set for the broker, or as the default of all brokers. It must not
// be changed.
func (t *Topics) BrokerConfigs(all bool) map[string]string { return t.broker[all] }

func (c *Catalog) alterBrokerConfigs(alter *AlterBrokerConfigs) (*Topics, error) {
	configs, err := alter.Apply(c.view.broker[alter.All])
	if err != nil {
		return nil, err
	}
	if maps.Equal(configs, c.view.broker[alter.All]) {
		return c.view, nil
	}
	next := *c.view
	next.broker = maps.Clone(c.view.broker)
	if next.broker == nil {
		next.broker = BrokerSettings{}
	}
	if len(configs) == 0 {
		delete(next.broker, alter.All)
	} else {
		next.broker[alter.All] = configs
	}
	return &next, nil
}

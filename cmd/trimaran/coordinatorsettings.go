package main

import (
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/coordinator"
	"github.com/trimaran-io/trimaran/transaction"
)

// coordinatorSettings are those of consumer groups and of transactions.
type coordinatorSettings struct {
	groups       coordinator.Settings
	transactions transaction.Settings
}

func defaultCoordinatorSettings() coordinatorSettings {
	return coordinatorSettings{coordinator.DefaultSettings(), transaction.DefaultSettings()}
}

// coordinatorFlags are broker configurations of Kafka for consumer groups and transactions, whose
// names have '.' where the flags have '-' (GroupCoordinatorConfig, TransactionLogConfig,
// TransactionStateManagerConfig).
var coordinatorFlags = []struct {
	flag     string
	least    int64
	standard func(coordinatorSettings) int64
	set      func(*coordinatorSettings, int64)
	usage    string
}{
	{"group-initial-rebalance-delay-ms", 0,
		func(s coordinatorSettings) int64 { return s.groups.InitialRebalanceDelay.Milliseconds() },
		func(s *coordinatorSettings, v int64) {
			s.groups.InitialRebalanceDelay = time.Duration(v) * time.Millisecond
		},
		"`ms` that a new consumer group waits for more members before its first rebalance"},
	{"group-min-session-timeout-ms", 1,
		func(s coordinatorSettings) int64 { return s.groups.MinSessionTimeout.Milliseconds() },
		func(s *coordinatorSettings, v int64) {
			s.groups.MinSessionTimeout = time.Duration(v) * time.Millisecond
		},
		"shortest session timeout, in `ms`, that a consumer may ask for"},
	{"group-max-session-timeout-ms", 1,
		func(s coordinatorSettings) int64 { return s.groups.MaxSessionTimeout.Milliseconds() },
		func(s *coordinatorSettings, v int64) {
			s.groups.MaxSessionTimeout = time.Duration(v) * time.Millisecond
		},
		"longest session timeout, in `ms`, that a consumer may ask for"},
	{"group-max-size", 1,
		func(s coordinatorSettings) int64 { return int64(s.groups.MaxGroupSize) },
		func(s *coordinatorSettings, v int64) { s.groups.MaxGroupSize = int(v) },
		"`number` of members that a consumer group may have"},
	{"offsets-retention-minutes", 1,
		func(s coordinatorSettings) int64 { return int64(s.groups.OffsetsRetention / time.Minute) },
		func(s *coordinatorSettings, v int64) { s.groups.OffsetsRetention = time.Duration(v) * time.Minute },
		"`minutes` that committed offsets are kept after their consumer group lost its last member"},
	{"transaction-max-timeout-ms", 1,
		func(s coordinatorSettings) int64 { return s.transactions.MaxTimeout.Milliseconds() },
		func(s *coordinatorSettings, v int64) { s.transactions.MaxTimeout = time.Duration(v) * time.Millisecond },
		"longest transaction timeout, in `ms`, that a producer may ask for"},
	{"transactional-id-expiration-ms", 1,
		func(s coordinatorSettings) int64 { return s.transactions.IDExpiration.Milliseconds() },
		func(s *coordinatorSettings, v int64) {
			s.transactions.IDExpiration = time.Duration(v) * time.Millisecond
		},
		"`ms` that a transactional id is kept that nobody uses"},
}

func addCoordinatorFlags(cmd *cobra.Command) {
	for _, g := range coordinatorFlags {
		cmd.Flags().Int64(g.flag, g.standard(defaultCoordinatorSettings()), g.usage)
	}
}

// coordinatorSettingsOf reads what addCoordinatorFlags added.
func coordinatorSettingsOf(cmd *cobra.Command) (coordinatorSettings, error) {
	s := defaultCoordinatorSettings()
	for _, g := range coordinatorFlags {
		value, _ := cmd.Flags().GetInt64(g.flag)
		most := int64(math.MaxInt32) // as in Kafka
		if value < g.least || value > most {
			return s, usagef("--%s %d: want %d to %d", g.flag, value, g.least, most)
		}
		g.set(&s, value)
	}
	if s.groups.MinSessionTimeout > s.groups.MaxSessionTimeout {
		return s, usagef("--group-min-session-timeout-ms %d is more than --group-max-session-timeout-ms %d",
			s.groups.MinSessionTimeout.Milliseconds(), s.groups.MaxSessionTimeout.Milliseconds())
	}
	return s, nil
}

package main

import (
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/coordinator"
)

// groupFlags are broker configurations of Kafka for consumer groups, whose names
// have '.' where the flags have '-' (GroupCoordinatorConfig).
var groupFlags = []struct {
	flag     string
	least    int64
	standard func(coordinator.Settings) int64
	set      func(*coordinator.Settings, int64)
	usage    string
}{
	{"group-initial-rebalance-delay-ms", 0,
		func(s coordinator.Settings) int64 { return s.InitialRebalanceDelay.Milliseconds() },
		func(s *coordinator.Settings, v int64) { s.InitialRebalanceDelay = time.Duration(v) * time.Millisecond },
		"`ms` that a new consumer group waits for more members before its first rebalance"},
	{"group-min-session-timeout-ms", 1,
		func(s coordinator.Settings) int64 { return s.MinSessionTimeout.Milliseconds() },
		func(s *coordinator.Settings, v int64) { s.MinSessionTimeout = time.Duration(v) * time.Millisecond },
		"shortest session timeout, in `ms`, that a consumer may ask for"},
	{"group-max-session-timeout-ms", 1,
		func(s coordinator.Settings) int64 { return s.MaxSessionTimeout.Milliseconds() },
		func(s *coordinator.Settings, v int64) { s.MaxSessionTimeout = time.Duration(v) * time.Millisecond },
		"longest session timeout, in `ms`, that a consumer may ask for"},
	{"group-max-size", 1,
		func(s coordinator.Settings) int64 { return int64(s.MaxGroupSize) },
		func(s *coordinator.Settings, v int64) { s.MaxGroupSize = int(v) },
		"`number` of members that a consumer group may have"},
	{"offsets-retention-minutes", 1,
		func(s coordinator.Settings) int64 { return int64(s.OffsetsRetention / time.Minute) },
		func(s *coordinator.Settings, v int64) { s.OffsetsRetention = time.Duration(v) * time.Minute },
		"`minutes` that committed offsets are kept after their consumer group lost its last member"},
}

func addGroupFlags(cmd *cobra.Command) {
	for _, g := range groupFlags {
		cmd.Flags().Int64(g.flag, g.standard(coordinator.DefaultSettings()), g.usage)
	}
}

// groupsOf reads what addGroupFlags added.
func groupsOf(cmd *cobra.Command) (coordinator.Settings, error) {
	s := coordinator.DefaultSettings()
	for _, g := range groupFlags {
		value, _ := cmd.Flags().GetInt64(g.flag)
		most := int64(math.MaxInt32) // as in Kafka
		if value < g.least || value > most {
			return s, usagef("--%s %d: want %d to %d", g.flag, value, g.least, most)
		}
		g.set(&s, value)
	}
	if s.MinSessionTimeout > s.MaxSessionTimeout {
		return s, usagef("--group-min-session-timeout-ms %d is more than --group-max-session-timeout-ms %d",
			s.MinSessionTimeout.Milliseconds(), s.MaxSessionTimeout.Milliseconds())
	}
	return s, nil
}

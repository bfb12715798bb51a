//go:build measure

package cluster

import (
	"log/slog"
	"os"

	"github.com/trimaran-io/trimaran/cluster/raftlog"
)

// forMeasuring lets `make bench` see what the journal and what stable storage cost. The program
// that users have is built without the tag and knows neither variable.
func forMeasuring(opts *raftlog.Options, logger *slog.Logger) {
	if os.Getenv("TRIMARAN_TEST_JOURNAL") == "off" {
		opts.JournalBytes = -1
	}
	if os.Getenv("TRIMARAN_TEST_SYNC") == "off" {
		opts.NoSync = true
		logger.Warn("TRIMARAN_TEST_SYNC=off: records are acknowledged that are not on stable storage")
	}
}

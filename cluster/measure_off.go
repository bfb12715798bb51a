//go:build !measure

package cluster

import (
	"log/slog"

	"github.com/trimaran-io/trimaran/cluster/raftlink"
	"github.com/trimaran-io/trimaran/cluster/raftlog"
)

// forMeasuring changes nothing: see measure.go.
func forMeasuring(*raftlog.Options, *slog.Logger) {}

// linksForMeasuring changes nothing, either.
func linksForMeasuring(*raftlink.Config) {}

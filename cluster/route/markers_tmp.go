package route

import (
	"context"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/outcome"
)

// WriteMarkers is not there yet.
func (r *Router) WriteMarkers(ctx context.Context, id fsm.PartitionID, markers []fsm.Marker) ([]outcome.Error, error) {
	return nil, outcome.ErrNoLeader
}

package gateway

import (
	"github.com/trimaran-io/trimaran/gateway/listen"
	"github.com/trimaran-io/trimaran/gateway/order"
)

// Cluster is all that the gateway knows of the nodes behind it: what each of its users knows,
// declared beside that user. Errors are in outcome's list. All methods may be called concurrently.
type Cluster interface {
	Catalog // find.go
	Nodes   // brokers.go
	listen.Node
	order.Appender
	Records      // 01_fetch.go
	Offsets      // 02_list_offsets.go
	Changes      // changes.go
	Producers    // 22_init_producer_id.go
	Coordinators // groups.go
	Markers      // 27_write_txn_markers.go
	Operations   // 21586_status.go
	Backups      // 21590_backup.go
}

// parts are a cluster as its users know it, so that it can be seen who uses what.
type parts struct {
	catalog      Catalog
	nodes        Nodes
	appender     order.Appender
	records      Records
	offsets      Offsets
	changes      Changes
	producers    Producers
	coordinators Coordinators
	markers      Markers
	operations   Operations
	backups      Backups
}

func partsOf(c Cluster) parts {
	return parts{
		catalog: c, nodes: c, appender: c, records: c, offsets: c, changes: c, producers: c,
		coordinators: c, markers: c, operations: c, backups: c,
	}
}

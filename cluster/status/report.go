package status

import (
	"github.com/hashicorp/raft"

	"github.com/trimaran-io/trimaran/admin"
	"github.com/trimaran-io/trimaran/cluster/calls"
	"github.com/trimaran-io/trimaran/fsm"
)

// Report is what this node says of its replicas (calls.ReplicaStatus).
func (o *Overview) Report() calls.NodeReport {
	here := o.cfg.Here
	report := calls.NodeReport{Replicas: map[string]calls.ReplicaReport{}, Broken: map[string]string{}, DiskFull: here.Full()}
	report.DiskFree, report.DiskTotal = here.Space()
	if o.cfg.Backup != nil {
		report.Backup = o.cfg.Backup()
	}
	if o.cfg.Compaction != nil {
		report.Compaction = o.cfg.Compaction()
	}
	broken, hurtBy := here.Troubles()
	for id, err := range broken {
		report.Broken[id.String()] = err.Error()
	}
	hurt := make(map[fsm.PartitionID]string, len(hurtBy))
	for id, err := range hurtBy {
		hurt[id] = err.Error()
	}
	for _, r := range here.Running() {
		start, next := r.Bounds()
		identity, term := r.Member().Leader()
		var ids []string
		if identity == o.cfg.Self {
			ids = votersOf(r.Member())
		}
		said := calls.ReplicaReport{Leads: identity == o.cfg.Self, Voters: ids, Term: fsm.Term(term), LogStart: start, Applied: next, Bytes: r.Bytes(), CatchUp: r.CatchUp(), Hurt: hurt[r.ID()]}
		if c := r.Compaction(); c.Compacted {
			said.Compaction = &admin.ReplicaCompaction{DirtyRatio: c.DirtyRatio, Waits: c.Waits}
		}
		if t := r.Tier(); t != nil {
			if t.LocalStart > start {
				said.LocalStart = t.LocalStart
			}
			if said.Leads {
				said.Tier = t
			}
			said.Unseen = r.Unseen()
		}
		report.Replicas[r.ID().String()] = said
	}
	if m := here.Catalog(); m != nil {
		report.Catalog = "voter"
		report.Term, report.End = fsm.Term(m.Term()), m.End()
		if m.Leads() {
			report.Catalog, report.CatalogVoters = "leader", votersOf(m)
		} else if servers, err := m.Servers(); err == nil {
			for _, s := range servers {
				if string(s.ID) == o.cfg.Self && s.Suffrage != raft.Voter {
					report.Catalog = "nonvoter"
				}
			}
		}
	}
	return report
}

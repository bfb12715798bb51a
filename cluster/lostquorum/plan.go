package lostquorum

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/trimaran-io/trimaran/fsm"
)

// TermGap is how far the term in which a group goes on is above all that the survivors know of. The
// members that were lost may have elected leaders meanwhile, one in a term, and clients may have
// seen their leader epochs, which are terms: epochs must go on rising, so that a consumer that has
// read what is lost hears of it (KIP-320). An epoch has 31 bits.
const TermGap = fsm.RecoveryGap

// CatalogGroup is the name of the catalog's group.
const CatalogGroup = "catalog"

// Fate is what becomes of a group.
type Fate string

const (
	Kept      Fate = "kept"      // it has a majority: nothing is done
	Recovered Fate = "recovered" // it goes on with the survivors
	Gone      Fate = "gone"      // no survivor has anything of it
)

// Plan says how the groups of a cluster go on.
type Plan struct {
	Format    int      `json:"format"`
	ClusterID string   `json:"cluster_id"`
	Lost      []string `json:"lost"`      // identities
	Survivors []string `json:"survivors"` // identities
	Groups    []Group  `json:"groups"`    // the catalog first, then by topic and partition
	// Decided is what was decided by: the same at all survivors, or they have not been told the
	// same.
	Decided json.RawMessage `json:"-"`
}

// Group is one group of a plan.
type Group struct {
	Name      string `json:"name"`  // of the Raft group
	Topic     string `json:"topic"` // "" of the catalog
	Partition int32  `json:"partition"`
	Fate      Fate   `json:"fate"`

	// Of one that is recovered: the member whose log it goes on with, and where that ends.
	Member    string `json:"member,omitempty"`
	Index     uint64 `json:"index,omitempty"`
	Term      uint64 `json:"term,omitempty"`
	At        int64  `json:"at,omitempty"`        // of that entry, ms since 1970; 0: not known
	Committed uint64 `json:"committed,omitempty"` // entries up to here were; others may have been
	// MissingFrom is the first offset that may be missing; of a shard and the catalog, entries
	// behind Index may be.
	MissingFrom int64 `json:"missing_from"`

	NewTerm uint64   `json:"new_term,omitempty"`
	Servers []Server `json:"servers,omitempty"`
	// Held are the lost nodes that had one that is gone; none of the catalog.
	Held []fsm.NodeID `json:"held,omitempty"`
	// Unusable says why survivors that hold it cannot go on with what they have.
	Unusable map[string]string `json:"unusable,omitempty"`
}

// String is how people know the group.
func (g Group) String() string {
	if g.Topic == "" {
		return g.Name
	}
	return fmt.Sprintf("%s-%d", g.Topic, g.Partition)
}

// Records reports whether offsets of the group are those of records.
func (g Group) Records() bool { return g.Topic != "" && g.Topic != fsm.GroupShardsName }

var (
	// ErrMajority refuses a recovery: nothing has lost its majority.
	ErrMajority = errors.New("every group has a majority among the nodes that are left: start them, and nothing is lost")
	// ErrGone refuses a recovery that nothing would go on by.
	ErrGone = errors.New("nothing can go on that does not as it is: start the nodes that are left, delete the topics that are gone, and restore them from a backup if there is one")
)

// Decide makes the plan of a cluster of which these surveys are all that is left. lost names every
// other node, by its id or its identity: none is taken for lost because it is not there. The error
// says what is not as it should be; ErrMajority and ErrGone, that there is nothing to do.
func Decide(surveys []*Survey, lost []string) (*Plan, error) {
	surveys = slices.Clone(surveys)
	slices.SortFunc(surveys, func(a, b *Survey) int { return strings.Compare(a.Identity, b.Identity) })
	newest, err := checkSurveys(surveys)
	if err != nil {
		return nil, err
	}
	p := &Plan{Format: Format, ClusterID: newest.ClusterID}
	for _, s := range surveys {
		p.Survivors = append(p.Survivors, s.Identity)
	}
	if p.Lost, err = account(newest, surveys, lost); err != nil {
		return nil, err
	}
	d := decision{surveys: surveys}
	catalog, err := d.group(Group{Name: CatalogGroup}, func(s *Survey) (Log, bool) { return s.Catalog, true })
	if err != nil {
		return nil, err
	}
	p.Groups = append(p.Groups, catalog)
	holds := map[string]fsm.NodeID{}
	for _, node := range newest.Nodes {
		holds[node.Identity()] = node.ID
	}
	for _, topic := range newest.Topics {
		for i, holders := range topic.Holders {
			g := Group{Name: fsm.PartitionID{Topic: topic.ID, Partition: int32(i)}.String(), Topic: topic.Name, Partition: int32(i)}
			g, err := d.group(g, func(s *Survey) (Log, bool) {
				if !slices.Contains(holders, holds[s.Identity]) {
					return Log{}, false // it will let go of what it has
				}
				log, ok := s.Logs[g.Name]
				return log, ok
			})
			if err != nil {
				return nil, err
			}
			if g.Fate == Gone {
				g.Held = slices.DeleteFunc(slices.Clone(holders), func(id fsm.NodeID) bool {
					return slices.ContainsFunc(surveys, func(s *Survey) bool { return holds[s.Identity] == id })
				})
			}
			p.Groups = append(p.Groups, g)
		}
	}
	if !slices.ContainsFunc(p.Groups, func(g Group) bool { return g.Fate == Recovered }) {
		return nil, p.nothing()
	}
	for i, s := range surveys {
		surveys[i] = s.decisive()
	}
	p.Decided, err = json.Marshal(struct {
		Lost    []string  `json:"lost"`
		Surveys []*Survey `json:"surveys"`
	}{p.Lost, surveys})
	return p, err
}

// nothing says why a plan recovers nothing.
func (p *Plan) nothing() error {
	var gone []string
	for _, g := range p.Groups {
		if g.Fate == Gone {
			gone = append(gone, g.String())
		}
	}
	if len(gone) == 0 {
		return ErrMajority
	}
	const most = 5
	more := ""
	if len(gone) > most {
		more = fmt.Sprintf(" and %d more", len(gone)-most)
		gone = gone[:most]
	}
	return fmt.Errorf("no survivor has anything of %s%s, and every other group has a majority: %w", strings.Join(gone, ", "), more, ErrGone)
}

// checkSurveys gives the survey with the newest catalog.
func checkSurveys(surveys []*Survey) (newest *Survey, err error) {
	for i, s := range surveys {
		if s.ClusterID != surveys[0].ClusterID {
			return nil, fmt.Errorf("%s is of cluster %s, and %s of %s", s.Identity, s.ClusterID, surveys[0].Identity, surveys[0].ClusterID)
		}
		if i > 0 && s.Identity == surveys[i-1].Identity {
			return nil, fmt.Errorf("there are two surveys of %s", s.Identity)
		}
		if s.Catalog.usable() && s.Catalog.Index > 0 && (newest == nil || newest.Catalog.behind(s.Catalog)) {
			newest = s
		}
	}
	if newest == nil {
		problem := "none was given"
		if len(surveys) > 0 {
			problem = surveys[0].Identity + ": " + surveys[0].Catalog.Problem
		}
		return nil, fmt.Errorf("no survivor has a catalog that can be read (%s)", problem)
	}
	return newest, nil
}

// account gives the identities that are lost, or an error if the survivors and these are not all
// the nodes that there are.
func account(newest *Survey, surveys []*Survey, lost []string) ([]string, error) {
	gone := map[string]bool{}
	for _, s := range surveys {
		for _, identity := range s.Lost {
			gone[identity] = true
		}
	}
	registered := map[string]string{}
	var names []string
	for _, node := range newest.Nodes {
		registered[string(node.ID)], registered[node.Identity()] = node.Identity(), node.Identity()
		names = append(names, string(node.ID))
	}
	for _, name := range lost {
		identity, ok := registered[name]
		if !ok && !gone[name] {
			return nil, fmt.Errorf("no node is named %q: the catalog has %s", name, strings.Join(names, ", "))
		}
		if ok {
			gone[identity] = true
		}
	}
	for _, s := range surveys {
		switch {
		case registered[s.Identity] == "":
			return nil, fmt.Errorf("%s is no node of the cluster, by the newest catalog that is left: leave it out", s.Identity)
		case gone[s.Identity]:
			return nil, fmt.Errorf("%s is named as lost, and there is a survey of it", s.Identity)
		}
	}
	for _, node := range newest.Nodes {
		surveyed := slices.ContainsFunc(surveys, func(s *Survey) bool { return s.Identity == node.Identity() })
		if !surveyed && !gone[node.Identity()] {
			return nil, fmt.Errorf("node %s is neither named as lost nor is there a survey of it: with it a group may have a majority", node.ID)
		}
	}
	return slices.Sorted(maps.Keys(gone)), nil
}

// decision is what a plan is made of.
type decision struct{ surveys []*Survey }

// group decides what becomes of one group. of gives what a survivor has of it.
func (d decision) group(g Group, of func(*Survey) (log Log, ok bool)) (Group, error) {
	logs := map[string]Log{} // of those that can go on, by identity
	for _, s := range d.surveys {
		log, ok := of(s)
		switch {
		case !ok:
		case log.usable():
			logs[s.Identity] = log
		default:
			if g.Unusable == nil {
				g.Unusable = map[string]string{}
			}
			g.Unusable[s.Identity] = log.Problem
		}
	}
	members := slices.Sorted(maps.Keys(logs))
	top := uint64(0) // of all terms that are known
	for _, identity := range members {
		log := logs[identity]
		top = max(top, log.Voted, log.Term)
		if electable(identity, log, logs) {
			g.Fate, g.Unusable = Kept, nil
			return g, nil
		}
		if log.Index > 0 && (g.Member == "" || !log.behind(logs[g.Member])) {
			g.Member = identity
		}
	}
	if g.Member == "" {
		g.Fate = Gone
		return g, nil
	}
	if top > math.MaxInt32-TermGap {
		return g, fmt.Errorf("group %s is in term %d: no term is left that is far enough above it", g, top)
	}
	best := logs[g.Member]
	g.Fate, g.NewTerm = Recovered, top+TermGap
	g.Index, g.Term, g.At, g.Committed, g.MissingFrom = best.Index, best.Term, best.At, best.Committed, best.Next
	for _, server := range best.Servers {
		if log, survives := logs[server.Identity]; survives && server.Identity != g.Member {
			// One that would give no vote gets one when it has caught up.
			server.Votes = server.Votes && log.votes()
			g.Servers = append(g.Servers, server)
		}
	}
	g.Servers = slices.Insert(g.Servers, 0, Server{Identity: g.Member, Votes: true})
	return g, nil
}

// electable reports whether the survivors would elect the member that has this log, by the
// configuration in it.
func electable(identity string, log Log, logs map[string]Log) bool {
	voters, votes, stands := 0, 0, false
	for _, server := range log.Servers {
		if !server.Votes {
			continue
		}
		voters++
		stands = stands || server.Identity == identity
		if voter, survives := logs[server.Identity]; survives && voter.behind(log) && voter.votes() {
			votes++
		}
	}
	return stands && votes > voters/2
}

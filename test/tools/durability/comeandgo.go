package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trimaran-io/trimaran/test/harness"
)

// patience is how long one step of comeAndGo may take.
const patience = 5 * time.Minute

// comeAndGo has two nodes join, decommissions one of the old ones while a new one is
// killed and started again, and replaces another, lost with its disk, by a third
// new one. It ends when everything has as many replicas as it should, on nodes that are there.
func (d *disturber) comeAndGo(ctx context.Context) error {
	status, err := d.status()
	if err != nil {
		return err
	}
	if len(status.Nodes) < 3 {
		return fmt.Errorf("for nodes to come and go three are needed to begin with, and there are %d", len(status.Nodes))
	}
	decommissioned, lost := status.Nodes[0].ID, status.Nodes[1].ID
	var joined [2]string
	for i := range joined {
		if joined[i], err = d.join(); err != nil {
			return err
		}
	}
	err = d.until(ctx, fmt.Sprintf("%s and %s have their share", joined[0], joined[1]), func(s *clusterStatus) bool {
		return s.holds(joined[0]) > 0 && s.holds(joined[1]) > 0 && s.settled()
	})
	if err != nil {
		return err
	}
	d.tell("decommission %s", decommissioned)
	if err := d.administer("node", "decommission", decommissioned); err != nil {
		return err
	}
	if err := d.killed(ctx, number(joined[0]), d.down); err != nil {
		return err
	}
	if err := d.gone(ctx, decommissioned); err != nil {
		return err
	}
	if err := d.do("forget", number(decommissioned)); err != nil {
		return err
	}
	d.kills++
	if err := d.do("forget", number(lost)); err != nil {
		return err
	}
	successor, err := d.join()
	if err != nil {
		return err
	}
	d.tell("replace %s by %s", lost, successor)
	if err := d.administer("node", "replace", lost, successor); err != nil {
		return err
	}
	if err := d.gone(ctx, lost); err != nil {
		return err
	}
	return d.until(ctx, "all replicas are where they should be", (*clusterStatus).settled)
}

// administer runs an operator's command until it is taken: nodes come and go meanwhile.
func (d *disturber) administer(args ...string) error {
	_, err := harness.Taken(patience, func() (string, error) {
		return output(d.trimaran, asUser(append(args, "--brokers", d.shim)...)...)
	})
	return err
}

// join starts one more node and gives its id.
func (d *disturber) join() (string, error) {
	out, err := output(d.script, "add")
	if err != nil {
		return "", err
	}
	var n int
	if _, err := fmt.Sscanf(out, "node %d", &n); err != nil {
		return "", fmt.Errorf("%s add says %q", d.script, out)
	}
	d.tell("node %d has joined", n)
	return "n" + strconv.Itoa(n), nil
}

// number is that of a node for cluster.sh.
func number(id string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(id, "n"))
	return n
}

// gone waits until a node has left the cluster and nothing is left on it.
func (d *disturber) gone(ctx context.Context, id string) error {
	return d.until(ctx, id+" has left the cluster and holds nothing", func(s *clusterStatus) bool {
		for _, n := range s.Nodes {
			if n.ID == id {
				return false
			}
		}
		// While it votes in the catalog the others need each other more.
		votes := slices.ContainsFunc(s.CatalogVoters, func(v string) bool { return strings.HasPrefix(v, id+".") })
		return s.holds(id) == 0 && len(s.CatalogVoters) > 0 && !votes
	})
}

// clusterStatus is the part of 'trimaran cluster status --json' that is looked at here.
type clusterStatus struct {
	Nodes []struct {
		ID            string `json:"id"`
		ClientAddress string `json:"client_address"`
	} `json:"nodes"`
	CatalogVoters []string `json:"catalog_voters"` // identities, <id>.<incarnation>
	Topics        []struct {
		ReplicationFactor int               `json:"replication_factor"`
		Partitions        []partitionStatus `json:"partitions"`
	} `json:"topics"`
}

type partitionStatus struct {
	Leader   string `json:"leader"`
	Replicas []struct {
		Node    string `json:"node"`
		Role    string `json:"role"`
		Leaving bool   `json:"leaving"`
	} `json:"replicas"`
}

func (d *disturber) status() (*clusterStatus, error) {
	out, err := output(d.trimaran, asUser("cluster", "status", "--json", "--brokers", d.shim)...)
	if err != nil {
		return nil, err
	}
	s := new(clusterStatus)
	return s, json.Unmarshal([]byte(out), s)
}

// holds counts a node's replicas.
func (s *clusterStatus) holds(node string) (n int) {
	for _, t := range s.Topics {
		for _, p := range t.Partitions {
			for _, r := range p.Replicas {
				if r.Node == node {
					n++
				}
			}
		}
	}
	return n
}

// settled: as many replicas as there should be, all of them running, none on the move.
func (s *clusterStatus) settled() bool {
	for _, t := range s.Topics {
		for _, p := range t.Partitions {
			if len(p.Replicas) != t.ReplicationFactor || p.Leader == "" {
				return false
			}
			for _, r := range p.Replicas {
				if r.Leaving || r.Role != "leader" && r.Role != "follower" {
					return false
				}
			}
		}
	}
	return len(s.Topics) > 0
}

// until asks for the status until it is as it should be.
func (d *disturber) until(ctx context.Context, what string, holds func(*clusterStatus) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		s, err := d.status()
		if err == nil && holds(s) {
			d.tell("%s", what)
			return nil
		}
		if !d.wait(ctx, 300*time.Millisecond) {
			return errors.Join(fmt.Errorf("in vain waited for: %s", what), err)
		}
	}
}

// addresses gives where clients reach the nodes that are in the cluster now.
func (d *disturber) addresses() ([]string, error) {
	s, err := d.status()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range s.Nodes {
		out = append(out, n.ClientAddress)
	}
	return out, nil
}

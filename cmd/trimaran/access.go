package main

import (
	"log/slog"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/gateway"
	"github.com/trimaran-io/trimaran/security"
)

// addAccessFlags gives a command that runs a node the flags that accessOf reads. The names are
// those of Kafka's configurations.
func addAccessFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Bool("authorize", false, "clients may do what ACLs allow, and nothing else; the same on all nodes")
	f.String("super-users", "", "who may do everything, with --authorize: `principals` such as User:admin, set apart by ';'")
	f.Bool("allow-everyone-if-no-acl", false, "with --authorize: everybody may do what they like to a resource that no ACL is for")
}

func accessOf(cmd *cobra.Command) (a gateway.Access, err error) {
	f := cmd.Flags()
	a.Authorize, _ = f.GetBool("authorize")
	a.AllowEveryoneIfNoACL, _ = f.GetBool("allow-everyone-if-no-acl")
	given, _ := f.GetString("super-users")
	if a.SuperUsers, err = gateway.ParseSuperUsers(given); err != nil {
		return a, usagef("--super-users: %v", err)
	}
	if !a.Authorize && (len(a.SuperUsers) > 0 || a.AllowEveryoneIfNoACL) {
		return a, usagef("--super-users and --allow-everyone-if-no-acl mean nothing without --authorize")
	}
	return a, nil
}

// clientsOpen says whether whoever reaches the client port may do everything.
func (o *nodeOptions) clientsOpen() bool {
	return !o.login.required() && (!o.access.Authorize || slices.Contains(o.access.SuperUsers, security.Anonymous))
}

// warnOpen says at the start, once, what strangers may do: clients and nodes may come from beyond
// this machine.
func (o *nodeOptions) warnOpen(log *slog.Logger, clients, peers bool) {
	clients, peers = clients && o.clientsOpen(), peers && o.peers.tls == nil
	switch {
	case clients && peers:
		log.Warn("this node is open: whoever reaches its ports can read and change everything, as a client (--sasl-mechanisms, --authorize) and as a node (--peer-tls-cert); docs/security.md")
	case clients:
		log.Warn("this node is open to clients: whoever reaches their port can read and change everything; --sasl-mechanisms, --authorize, docs/security.md")
	case peers:
		log.Warn("nodes are not told from strangers: whoever reaches the port for other nodes can read and change everything; --peer-tls-cert, docs/security.md")
	}
}

// register adds what is to be seen of this in metrics.
func (o *nodeOptions) register(registry *prometheus.Registry) {
	o.peers.register(registry)
	open := 0.0
	if o.clientsOpen() {
		open = 1
	}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trimaran_clients_open", Help: "1 while whoever reaches the port for clients may do everything.",
	}, func() float64 { return open }))
}

package main

import (
	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/gateway"
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

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/security/acl"
)

func newACL() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "acl",
		Short: "Say who may do what",
		Long: `Say who may do what: add, list and remove access control lists. They are obeyed by nodes
that run with --authorize. What no ACL allows is denied then, but to super users; what one denies is
denied whatever others allow.`,
		Example: `  trimaran acl add --principal User:alice --topic events --operation read --operation write
  trimaran acl add --principal User:alice --group-prefix alice- --operation read
  trimaran acl list --topic events
  trimaran acl remove --principal User:alice`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newACLAdd(), newACLList(), newACLRemove())
	return cmd
}

func newACLAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Allow or deny something",
		Example: `  trimaran acl add --principal User:alice --topic events --operation read
  trimaran acl add --principal User:bob --topic-prefix logs. --operation write --operation describe
  trimaran acl add --deny --principal 'User:*' --topic secret --operation all`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return addACLs(cmd) },
	}
	addBrokerFlags(cmd)
	addACLFlags(cmd)
	cmd.Flags().Bool("deny", false, "deny it, whatever other ACLs allow")
	return cmd
}

// addACLFlags gives a command the flags that say what an ACL is about.
func addACLFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("principal", "", "who: `Type:name`, such as User:alice; User:* is everybody")
	f.String("host", "", "`address` that it is at; any if not given")
	f.StringSlice("operation", nil, "what: "+strings.Join(acl.Operations(), ", "))
	f.StringSlice("topic", nil, "`names` of topics; * is all")
	f.StringSlice("topic-prefix", nil, "what `names` of topics begin with")
	f.StringSlice("group", nil, "`names` of consumer groups; * is all")
	f.StringSlice("group-prefix", nil, "what `names` of groups begin with")
	f.StringSlice("transactional-id", nil, "transactional `ids`; * is all")
	f.Bool("cluster", false, "the cluster")
}

// aclPattern is what an ACL is for.
type aclPattern struct {
	kind    acl.ResourceType
	pattern acl.PatternType
	name    string
}

func aclPatterns(cmd *cobra.Command) (all []aclPattern) {
	for _, p := range []struct {
		flag    string
		kind    acl.ResourceType
		pattern acl.PatternType
	}{
		{"topic", acl.Topic, acl.Literal}, {"topic-prefix", acl.Topic, acl.Prefixed}, {"group", acl.Group, acl.Literal},
		{"group-prefix", acl.Group, acl.Prefixed}, {"transactional-id", acl.TransactionalID, acl.Literal},
	} {
		names, _ := cmd.Flags().GetStringSlice(p.flag)
		for _, name := range names {
			all = append(all, aclPattern{p.kind, p.pattern, name})
		}
	}
	if cluster, _ := cmd.Flags().GetBool("cluster"); cluster {
		all = append(all, aclPattern{acl.Cluster, acl.Literal, acl.ClusterName})
	}
	return all
}

func aclOperations(cmd *cobra.Command) (all []acl.Operation, err error) {
	words, _ := cmd.Flags().GetStringSlice("operation")
	for _, w := range words {
		op, ok := acl.ParseOperation(w)
		if !ok || op < acl.All {
			return nil, usagef("--operation %q: want one of %s", w, strings.Join(acl.Operations(), ", "))
		}
		all = append(all, op)
	}
	return all, nil
}

// bindingsOf gives the ACLs that the flags say: every operation on every resource.
func bindingsOf(cmd *cobra.Command) (list []acl.Binding, err error) {
	principal, _ := cmd.Flags().GetString("principal")
	host, _ := cmd.Flags().GetString("host")
	deny, _ := cmd.Flags().GetBool("deny")
	ops, err := aclOperations(cmd)
	if err != nil {
		return nil, err
	}
	if host == "" {
		host = acl.Wildcard
	}
	permission := acl.Allow
	if deny {
		permission = acl.Deny
	}
	for _, p := range aclPatterns(cmd) {
		for _, op := range ops {
			b := acl.Binding{Type: p.kind, Pattern: p.pattern, Name: p.name, Principal: principal, Host: acl.NormalHost(host), Operation: op, Permission: permission}
			if err := b.Check(); err != nil {
				return nil, &usageError{err}
			}
			list = append(list, b)
		}
	}
	if len(list) == 0 {
		return nil, usagef("want --principal, at least one --operation, and what it is for: --topic, --topic-prefix, --group, --group-prefix, --transactional-id or --cluster")
	}
	return list, nil
}

func addACLs(cmd *cobra.Command) error {
	list, err := bindingsOf(cmd)
	if err != nil {
		return err
	}
	req := kmsg.NewPtrCreateACLsRequest()
	for _, b := range list {
		one := kmsg.NewCreateACLsRequestCreation()
		one.ResourceType, one.ResourceName, one.ResourcePatternType = kmsg.ACLResourceType(b.Type), b.Name, kmsg.ACLResourcePatternType(b.Pattern)
		one.Principal, one.Host, one.Operation, one.PermissionType = b.Principal, b.Host, kmsg.ACLOperation(b.Operation), kmsg.ACLPermissionType(b.Permission)
		req.Creations = append(req.Creations, one)
	}
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	resp, err := askOnce[*kmsg.CreateACLsResponse](ctx, cmd, req)
	if err != nil {
		return err
	}
	var errs []error
	for i, r := range resp.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil && i < len(list) {
			errs = append(errs, fmt.Errorf("%s: %w", list[i], explain(err, r.ErrorMessage)))
		}
	}
	return errors.Join(errs...)
}

func newACLList() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List ACLs, all or those of a principal or a resource",
		Example: "  trimaran acl list\n  trimaran acl list --principal User:alice\n  trimaran acl list --topic events --match",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return listACLs(cmd) },
	}
	addBrokerFlags(cmd)
	addACLFlags(cmd)
	cmd.Flags().Bool("match", false, "of a topic or group that is named, all that is obeyed: prefixes and * too")
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

// filtersOf gives the filters that the flags say: one for each resource and operation, or one for
// all.
func filtersOf(cmd *cobra.Command) (list []acl.Filter, err error) {
	all := acl.Filter{Type: acl.AnyType, Pattern: acl.AnyPattern, Operation: acl.AnyOperation, Permission: acl.AnyPermission}
	if principal, _ := cmd.Flags().GetString("principal"); principal != "" {
		all.Principal = &principal
	}
	if host, _ := cmd.Flags().GetString("host"); host != "" {
		host = acl.NormalHost(host)
		all.Host = &host
	}
	ops, err := aclOperations(cmd)
	if err != nil {
		return nil, err
	}
	if len(ops) == 0 {
		ops = []acl.Operation{acl.AnyOperation}
	}
	match, _ := cmd.Flags().GetBool("match")
	patterns := aclPatterns(cmd)
	if len(patterns) == 0 {
		patterns = []aclPattern{{kind: acl.AnyType, pattern: acl.AnyPattern}}
	}
	for _, p := range patterns {
		for _, op := range ops {
			f := all
			f.Type, f.Pattern, f.Operation = p.kind, p.pattern, op
			if name := p.name; name != "" {
				f.Name = &name
			}
			if match && f.Pattern == acl.Literal {
				f.Pattern = acl.Match
			}
			list = append(list, f)
		}
	}
	return list, nil
}

func listACLs(cmd *cobra.Command) error {
	filters, err := filtersOf(cmd)
	if err != nil {
		return err
	}
	b, cl, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	var found []acl.Binding
	for _, f := range filters {
		req := kmsg.NewPtrDescribeACLsRequest()
		req.ResourceType, req.ResourceName, req.ResourcePatternType = kmsg.ACLResourceType(f.Type), f.Name, kmsg.ACLResourcePatternType(f.Pattern)
		req.Principal, req.Host, req.Operation, req.PermissionType = f.Principal, f.Host, kmsg.ACLOperation(f.Operation), kmsg.ACLPermissionType(f.Permission)
		resp, err := ask[*kmsg.DescribeACLsResponse](ctx, b, cl, req)
		if err != nil {
			return err
		}
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return explain(err, resp.ErrorMessage)
		}
		for _, r := range resp.Resources {
			for _, a := range r.ACLs {
				found = append(found, acl.Binding{
					Type: acl.ResourceType(r.ResourceType), Pattern: acl.PatternType(r.ResourcePatternType), Name: r.ResourceName,
					Principal: a.Principal, Host: a.Host, Operation: acl.Operation(a.Operation), Permission: acl.Permission(a.PermissionType),
				})
			}
		}
	}
	return printACLs(cmd, acl.NewSet(found).All())
}

// shownACL is an ACL as --json prints it.
type shownACL struct {
	Permission string `json:"permission"`
	Principal  string `json:"principal"`
	Host       string `json:"host"`
	Operation  string `json:"operation"`
	Type       string `json:"resource_type"`
	Pattern    string `json:"pattern"`
	Name       string `json:"name"`
}

func printACLs(cmd *cobra.Command, list []acl.Binding) error {
	rows, shown := [][]string{{"PERMISSION", "PRINCIPAL", "HOST", "OPERATION", "RESOURCE", "PATTERN", "NAME"}}, []shownACL{}
	for _, b := range list {
		s := shownACL{b.Permission.String(), b.Principal, b.Host, b.Operation.String(), b.Type.String(), b.Pattern.String(), b.Name}
		shown = append(shown, s)
		rows = append(rows, []string{s.Permission, s.Principal, s.Host, s.Operation, s.Type, s.Pattern, s.Name})
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return printJSON(cmd.OutOrStdout(), shown)
	}
	return printTable(cmd.OutOrStdout(), rows)
}

func newACLRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove",
		Short:   "Remove ACLs, and print which",
		Example: "  trimaran acl remove --principal User:alice\n  trimaran acl remove --topic events --operation write\n  trimaran acl remove --all",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return removeACLs(cmd) },
	}
	addBrokerFlags(cmd)
	addACLFlags(cmd)
	cmd.Flags().Bool("all", false, "all that there are, where nothing else is given")
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

func removeACLs(cmd *cobra.Command) error {
	filters, err := filtersOf(cmd)
	if err != nil {
		return err
	}
	all, _ := cmd.Flags().GetBool("all")
	if f := filters[0]; !all && f.Type == acl.AnyType && f.Principal == nil && f.Host == nil && f.Operation == acl.AnyOperation {
		return usagef("that would be all ACLs; say which, or --all")
	}
	req := kmsg.NewPtrDeleteACLsRequest()
	for _, f := range filters {
		one := kmsg.NewDeleteACLsRequestFilter()
		one.ResourceType, one.ResourceName, one.ResourcePatternType = kmsg.ACLResourceType(f.Type), f.Name, kmsg.ACLResourcePatternType(f.Pattern)
		one.Principal, one.Host, one.Operation, one.PermissionType = f.Principal, f.Host, kmsg.ACLOperation(f.Operation), kmsg.ACLPermissionType(f.Permission)
		req.Filters = append(req.Filters, one)
	}
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	resp, err := askOnce[*kmsg.DeleteACLsResponse](ctx, cmd, req)
	if err != nil {
		return err
	}
	var errs []error
	var removed []acl.Binding
	for _, r := range resp.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			errs = append(errs, explain(err, r.ErrorMessage))
		}
		for _, m := range r.MatchingACLs {
			removed = append(removed, acl.Binding{
				Type: acl.ResourceType(m.ResourceType), Pattern: acl.PatternType(m.ResourcePatternType), Name: m.ResourceName,
				Principal: m.Principal, Host: m.Host, Operation: acl.Operation(m.Operation), Permission: acl.Permission(m.PermissionType),
			})
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return printACLs(cmd, acl.NewSet(removed).All())
}

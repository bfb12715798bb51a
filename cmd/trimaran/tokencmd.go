package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/gateway"
	"github.com/trimaran-io/trimaran/security"
)

func newToken() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Issue tokens for browsers and jobs, and take them back",
		Long: `Issue tokens that the cluster signs, for browsers and jobs: whoever has one may do what the user
who asks for it may, as far as the token names it, for a day at most. The cluster keeps the keys
that sign and what was revoked, and no list of tokens: who was issued which is in the audit log.`,
		Example: `  trimaran token create --read events --group-prefix job- --lifetime 1h --user alice > token
  trimaran token revoke --principal User:alice
  trimaran token rotate-keys`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenCreate(), newTokenRevoke(), newTokenList(), newTokenListKeys(), newTokenRotateKeys())
	return cmd
}

func newTokenCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Issue a token, and print it",
		Example: `  trimaran token create --read events --group-prefix job- --lifetime 1h --user alice > token
  trimaran consume events --token-file token`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return createToken(cmd) },
	}
	addBrokerFlags(cmd)
	f := cmd.Flags()
	f.StringSlice("read", nil, "`names` of topics that may be read")
	f.StringSlice("read-prefix", nil, "what `names` of topics begin with that may be read")
	f.StringSlice("write", nil, "`names` of topics that may be written to")
	f.StringSlice("write-prefix", nil, "what `names` of topics begin with that may be written to")
	f.StringSlice("group", nil, "`names` of consumer groups")
	f.StringSlice("group-prefix", nil, "what `names` of consumer groups begin with")
	f.Duration("lifetime", time.Hour, "how long it is good for, a day at most")
	return cmd
}

// scopeOf reads the flags that say what a token is for.
func scopeOf(cmd *cobra.Command) (scope security.Scope, err error) {
	for _, g := range []struct {
		flag  string
		grant security.Grant
	}{
		{"read", security.Grant{Resource: security.TopicResource, Access: security.ReadAccess}},
		{"read-prefix", security.Grant{Resource: security.TopicResource, Access: security.ReadAccess, Prefix: true}},
		{"write", security.Grant{Resource: security.TopicResource, Access: security.WriteAccess}},
		{"write-prefix", security.Grant{Resource: security.TopicResource, Access: security.WriteAccess, Prefix: true}},
		{"group", security.Grant{Resource: security.GroupResource}},
		{"group-prefix", security.Grant{Resource: security.GroupResource, Prefix: true}},
	} {
		names, _ := cmd.Flags().GetStringSlice(g.flag)
		for _, name := range names {
			g.grant.Name = name
			scope = append(scope, g.grant)
		}
	}
	if err := scope.Check(); err != nil {
		return nil, usagef("%v: --read, --write, --group and their prefixes say what a token is for", err)
	}
	return scope, nil
}

// tokenText is what a JWT is made of (RFC 7515, section 7.1).
var tokenText = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

func createToken(cmd *cobra.Command) error {
	scope, err := scopeOf(cmd)
	if err != nil {
		return err
	}
	lifetime, _ := cmd.Flags().GetDuration("lifetime")
	answer, err := askToken(cmd, gateway.TokenRequest{Kind: gateway.TokenKind, Scope: scope, LifetimeMs: lifetime.Milliseconds()})
	switch {
	case err != nil:
		return err
	case !tokenText.MatchString(answer.Token) || !tokenText.MatchString(answer.ID):
		return errors.New("what the node answers is no token")
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "token %s, good until %s\n", answer.ID, time.UnixMilli(answer.ExpiresMs).UTC().Format(time.RFC3339))
	_, err = fmt.Fprintln(cmd.OutOrStdout(), answer.Token)
	return err
}

func askToken(cmd *cobra.Command, asked gateway.TokenRequest) (answer gateway.TokenAnswer, err error) {
	b, err := brokersOf(cmd)
	if err != nil {
		return answer, err
	}
	request, err := json.Marshal(asked)
	if err != nil {
		return answer, err
	}
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	if err = askOwn(ctx, b, gateway.TokenKey, request, &answer); err == nil && answer.Error != "" {
		err = errors.New(answer.Error)
	}
	return answer, err
}

func newTokenRevoke() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke [ID…]",
		Short: "Take tokens back",
		Long: `Take tokens back, by the ids that were printed when they were issued (and are their claim jti),
or all that a principal has issued until now. Within a second no node takes them, and connections
that logged in by them end.`,
		Example: `  trimaran token revoke 5f2c1e0d9b8a7c6d5e4f3a2b1c0d9e8f
  trimaran token revoke --principal User:alice`,
		RunE: func(cmd *cobra.Command, ids []string) error {
			principal, _ := cmd.Flags().GetString("principal")
			if (len(ids) == 0) == (principal == "") {
				return usagef("want ids of tokens, or --principal")
			}
			answer, err := askToken(cmd, gateway.TokenRequest{Kind: gateway.RevokeKind, IDs: ids, Principal: principal})
			if err != nil {
				return err
			}
			return printRevoked(cmd, answer)
		},
	}
	addBrokerFlags(cmd)
	cmd.Flags().String("principal", "", "all tokens that `principal` has issued until now, such as User:alice")
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

func newTokenList() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what was revoked and is not over by itself",
		Long: `List the tokens that were revoked, until nobody can have one of them any more. Tokens that are
good are kept nowhere: who was issued which is in the audit log.`,
		Example: "  trimaran token list\n  trimaran token list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := askToken(cmd, gateway.TokenRequest{Kind: gateway.ListKind})
			if err != nil {
				return err
			}
			return printRevoked(cmd, answer)
		},
	}
	addBrokerFlags(cmd)
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

func shownTime(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

func printRevoked(cmd *cobra.Command, answer gateway.TokenAnswer) error {
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return printJSON(cmd.OutOrStdout(), append([]gateway.RevokedToken{}, answer.Revoked...))
	}
	rows := [][]string{{"REVOKED", "ISSUED UNTIL", "KEPT UNTIL"}}
	for _, r := range answer.Revoked {
		row := []string{"token " + r.ID, "", shownTime(r.UntilMs)}
		if r.Principal != "" {
			row[0], row[1] = "all of "+r.Principal, shownTime(r.BeforeMs)
		}
		rows = append(rows, row)
	}
	return printTable(cmd.OutOrStdout(), rows)
}

func newTokenListKeys() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list-keys",
		Short:   "List the keys that tokens are signed with, the oldest first",
		Example: "  trimaran token list-keys\n  trimaran token list-keys --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return askKeys(cmd, gateway.TokenRequest{Kind: gateway.ListKeysKind})
		},
	}
	addBrokerFlags(cmd)
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

func newTokenRotateKeys() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate-keys",
		Short: "Sign tokens with a new key",
		Long: `Have the cluster sign tokens with a new key. Those before it stay until no token that they signed
can be good any more, a day, and are removed by a later rotation. With --at-once they are removed
now: all tokens that are about are worth nothing then, and connections that logged in by them end.`,
		Example: "  trimaran token rotate-keys\n  trimaran token rotate-keys --at-once",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			atOnce, _ := cmd.Flags().GetBool("at-once")
			return askKeys(cmd, gateway.TokenRequest{Kind: gateway.RotateKeysKind, AtOnce: atOnce})
		},
	}
	addBrokerFlags(cmd)
	cmd.Flags().Bool("at-once", false, "remove all older keys now, and with them all tokens that are about")
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

func askKeys(cmd *cobra.Command, asked gateway.TokenRequest) error {
	answer, err := askToken(cmd, asked)
	if err != nil {
		return err
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return printJSON(cmd.OutOrStdout(), append([]gateway.TokenKeyInfo{}, answer.Keys...))
	}
	rows := [][]string{{"KEY", "CREATED", "SIGNS"}}
	for _, k := range answer.Keys {
		row := []string{k.ID, shownTime(k.CreatedMs), ""}
		if k.Signs {
			row[2] = "yes"
		}
		rows = append(rows, row)
	}
	return printTable(cmd.OutOrStdout(), rows)
}

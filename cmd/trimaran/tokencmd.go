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
		Short: "Issue tokens for browsers and jobs",
		Long: `Issue tokens that the cluster signs, for browsers and jobs: whoever has one may do what the user
who asks for it may, as far as the token names it, for a day at most.`,
		Example: "  trimaran token create --read events --group-prefix job- --lifetime 1h --user alice > token",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenCreate())
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
	b, err := brokersOf(cmd)
	if err != nil {
		return err
	}
	lifetime, _ := cmd.Flags().GetDuration("lifetime")
	request, err := json.Marshal(gateway.TokenRequest{Kind: gateway.TokenKind, Scope: scope, LifetimeMs: lifetime.Milliseconds()})
	if err != nil {
		return err
	}
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	var answer gateway.TokenAnswer
	if err := askOwn(ctx, b, gateway.TokenKey, request, &answer); err != nil {
		return err
	}
	switch {
	case answer.Error != "":
		return errors.New(answer.Error)
	case !tokenText.MatchString(answer.Token) || !tokenText.MatchString(answer.ID):
		return errors.New("what the node answers is no token")
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "token %s, good until %s\n", answer.ID, time.UnixMilli(answer.ExpiresMs).UTC().Format(time.RFC3339))
	_, err = fmt.Fprintln(cmd.OutOrStdout(), answer.Token)
	return err
}

package main

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/scram"
)

const (
	// scramIterations is what a password costs who tries them out; Kafka takes 4096 to 16384.
	scramIterations = scram.DefaultIterations
	saltBytes       = scram.SaltBytes
	maxPassword     = 1024 // bytes
)

// scramMechanisms are both that Kafka's clients know, with its numbers: a user who has only one is
// stuck with clients of the other.
var scramMechanisms = []struct {
	number int8
	name   string
}{{1, security.ScramSHA256}, {2, security.ScramSHA512}}

func newUser() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Create, list and delete users, and change passwords",
		Long: `Create, list and delete users who log in with a password (SASL SCRAM-SHA-256 and
SCRAM-SHA-512). A password is read from standard input with --password-stdin, or made up and
printed; it is never an argument, and nodes do not see it.`,
		Example: `  trimaran user create alice
  trimaran user create bob --password-stdin < password.txt
  trimaran user list
  trimaran user delete bob`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newUserCreate(), newUserPassword(), newUserList(), newUserDelete())
	return cmd
}

func newUserCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Create a user",
		Example: "  trimaran user create alice\n  trimaran user create bob --password-stdin < password.txt",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return setPassword(cmd, args[0], false) },
	}
	addBrokerFlags(cmd)
	addPasswordFlag(cmd)
	return cmd
}

func newUserPassword() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "password NAME",
		Short:   "Give a user another password",
		Example: "  trimaran user password alice\n  trimaran user password bob --password-stdin < password.txt",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return setPassword(cmd, args[0], true) },
	}
	addBrokerFlags(cmd)
	addPasswordFlag(cmd)
	return cmd
}

func addPasswordFlag(cmd *cobra.Command) {
	cmd.Flags().Bool("password-stdin", false, "read the password from the first line of standard input; else one is made up and printed")
}

// newPasswordOf gives the password that the command is to set, and whether it was made up.
func newPasswordOf(cmd *cobra.Command) (password string, madeUp bool, err error) {
	if given, _ := cmd.Flags().GetBool("password-stdin"); !given {
		return rand.Text(), true, nil // 130 bits
	}
	line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), maxPassword+2)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", false, fmt.Errorf("reading the password: %w", err)
	}
	password = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if password == "" || len(password) > maxPassword {
		return "", false, usagef("--password-stdin: want a password of 1 to %d bytes in one line", maxPassword)
	}
	return password, false, nil
}

// setPassword gives a user a password. there says whether the user has to be there, or must not.
func setPassword(cmd *cobra.Command, name string, there bool) error {
	password, madeUp, err := newPasswordOf(cmd)
	if err != nil {
		return err
	}
	found, err := describeUsers(cmd, name)
	if err != nil {
		return err
	}
	switch {
	case there && len(found) == 0:
		return fmt.Errorf("user %s: there is none of that name; 'trimaran user create' creates one", name)
	case !there && len(found) > 0:
		return fmt.Errorf("user %s: there is one of that name; 'trimaran user password' gives another password", name)
	}
	req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	for _, m := range scramMechanisms {
		up := kmsg.NewAlterUserSCRAMCredentialsRequestUpsertion()
		up.Name, up.Mechanism, up.Iterations, up.Salt = name, m.number, scramIterations, make([]byte, saltBytes)
		if _, err := rand.Read(up.Salt); err != nil {
			return err
		}
		if up.SaltedPassword, err = scram.Salted(m.name, password, up.Salt, scramIterations); err != nil {
			return err
		}
		req.Upsertions = append(req.Upsertions, up)
	}
	if err := alterUsers(cmd, req); err != nil {
		return err
	}
	if madeUp {
		fmt.Fprintln(cmd.OutOrStdout(), password)
	}
	return nil
}

func alterUsers(cmd *cobra.Command, req *kmsg.AlterUserSCRAMCredentialsRequest) error {
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	resp, err := askOnce[*kmsg.AlterUserSCRAMCredentialsResponse](ctx, cmd, req)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range resp.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			errs = append(errs, fmt.Errorf("user %s: %w", r.User, explain(err, r.ErrorMessage)))
		}
	}
	return errors.Join(errs...)
}

// shownUser is a user as --json prints it.
type shownUser struct {
	Name       string   `json:"name"`
	Mechanisms []string `json:"mechanisms"`

	numbers []int8
}

// describeUsers gives the user of that name, or all if it is "".
func describeUsers(cmd *cobra.Command, name string) (users []shownUser, err error) {
	req := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
	if name != "" {
		req.Users = []kmsg.DescribeUserSCRAMCredentialsRequestUser{{Name: name}}
	}
	ctx, cancel := withTimeout(cmd)
	defer cancel()
	resp, err := askOnce[*kmsg.DescribeUserSCRAMCredentialsResponse](ctx, cmd, req)
	if err != nil {
		return nil, err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, explain(err, resp.ErrorMessage)
	}
	for _, r := range resp.Results {
		switch err := kerr.ErrorForCode(r.ErrorCode); {
		case errors.Is(err, kerr.ResourceNotFound):
			continue
		case err != nil:
			return nil, fmt.Errorf("user %s: %w", r.User, explain(err, r.ErrorMessage))
		}
		u := shownUser{Name: r.User}
		for _, i := range r.CredentialInfos {
			u.numbers = append(u.numbers, i.Mechanism)
			for _, m := range scramMechanisms {
				if m.number == i.Mechanism {
					u.Mechanisms = append(u.Mechanisms, m.name)
				}
			}
		}
		users = append(users, u)
	}
	return users, nil
}

func newUserList() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the users",
		Example: "  trimaran user list\n  trimaran user list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			users, err := describeUsers(cmd, "")
			if err != nil {
				return err
			}
			if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
				return printJSON(cmd.OutOrStdout(), append([]shownUser{}, users...))
			}
			rows := [][]string{{"USER", "MECHANISMS"}}
			for _, u := range users {
				rows = append(rows, []string{u.Name, strings.Join(u.Mechanisms, ", ")})
			}
			return printTable(cmd.OutOrStdout(), rows)
		},
	}
	addBrokerFlags(cmd)
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

func newUserDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete NAME",
		Short:   "Delete a user; ACLs about it stay",
		Example: "  trimaran user delete alice",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := describeUsers(cmd, args[0])
			if err != nil {
				return err
			}
			if len(found) == 0 {
				return fmt.Errorf("user %s: there is none of that name", args[0])
			}
			req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
			for _, number := range found[0].numbers {
				req.Deletions = append(req.Deletions, kmsg.AlterUserSCRAMCredentialsRequestDeletion{Name: args[0], Mechanism: number})
			}
			return alterUsers(cmd, req)
		},
	}
	addBrokerFlags(cmd)
	return cmd
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/security/certs"
)

// How long certificates are valid unless told otherwise, in days.
const (
	caDays   = 3650
	leafDays = 365
)

// caName is the name of a CA's files in its directory, without .crt and .key.
const caName = "ca"

func newCert() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Make certificates: a CA of the cluster's own, and those that it signs",
		Long: `Make a CA of the cluster's own and certificates that it signs, for the connections
between nodes and for clients. Each is a pair of files, NAME.crt and NAME.key, that
only their owner can read. ca.key signs: keep it where no node runs.

A node's certificate has trimaran://node/NODE-ID in it, and other nodes take its
owner for that node and for no other.`,
		Example: `  trimaran cert ca
  trimaran cert node n1 n2 n3
  trimaran serve --node-id n1 --peer-tls-cert n1.crt --peer-tls-key n1.key --peer-tls-ca ca.crt …`,
	}
	cmd.AddCommand(newCertCA(), newCertNode(), newCertClient())
	return cmd
}

func newCertCA() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Make a CA",
		Long: `Make a CA: ca.crt, which all nodes have, and ca.key, which signs. A CA that is there
is never overwritten.`,
		Example: `  trimaran cert ca --dir secrets`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			life, err := daysOf(cmd)
			if err != nil {
				return err
			}
			ca, err := certs.NewCA(life)
			if err != nil {
				return err
			}
			dir, _ := cmd.Flags().GetString("dir")
			return saved(cmd, ca.Pair, dir, caName, false)
		},
	}
	addCertFlags(cmd, caDays, "`directory` for the files")
	return cmd
}

func newCertNode() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node NODE-ID...",
		Short: "Make certificates of nodes",
		Long: `Make certificates of nodes, which are for the peer link in both directions. With
--host they serve clients, too, who call the node by those names.`,
		Example: `  trimaran cert node n1 n2 n3
  trimaran cert node n1 --host kafka-1,10.0.0.1
  trimaran cert node n1 --replace   # a new one, which the node reads by itself`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			hosts, _ := cmd.Flags().GetStringSlice("host")
			return signed(cmd, ids, func(ca *certs.CA, id string, life time.Duration) (certs.Pair, error) {
				return ca.Node(id, hosts, life)
			})
		},
	}
	addCertFlags(cmd, leafDays, "`directory` of the CA, and for the files")
	cmd.Flags().StringSlice("host", nil, "`names` and addresses by which clients call the node")
	cmd.Flags().Bool("replace", false, "replace files that are there")
	return cmd
}

func newCertClient() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "client NAME...",
		Short: "Make certificates of clients",
		Long: `Make certificates of clients, with CN=NAME as subject. No node takes one for a node's.
A CA that signs for clients should be another one than that of the nodes.`,
		Example: `  trimaran cert ca --dir clients
  trimaran cert client alice --dir clients`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			return signed(cmd, names, (*certs.CA).Client)
		},
	}
	addCertFlags(cmd, leafDays, "`directory` of the CA, and for the files")
	cmd.Flags().Bool("replace", false, "replace files that are there")
	return cmd
}

func addCertFlags(cmd *cobra.Command, days int, dir string) {
	cmd.Flags().String("dir", ".", dir)
	cmd.Flags().Int("days", days, "for how many days they are valid")
}

func daysOf(cmd *cobra.Command) (time.Duration, error) {
	days, _ := cmd.Flags().GetInt("days")
	if days < 1 || days > 36500 {
		return 0, usagef("--days %d: want 1 to 36500", days)
	}
	return time.Duration(days) * 24 * time.Hour, nil
}

// signed makes and saves a certificate for each of the names. All are made before any is saved.
func signed(cmd *cobra.Command, names []string, sign func(ca *certs.CA, name string, life time.Duration) (certs.Pair, error)) error {
	life, err := daysOf(cmd)
	if err != nil {
		return err
	}
	dir, _ := cmd.Flags().GetString("dir")
	ca, err := certs.LoadCA(dir, caName)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no CA: %w; 'trimaran cert ca --dir %s' makes one", err, dir)
	}
	if err != nil {
		return err
	}
	pairs := map[string]certs.Pair{}
	for _, name := range names {
		if !fileName(name) {
			return usagef("%q: want a name of letters, digits, '.', '_' and '-', and not %s", name, caName)
		}
		if pairs[name], err = sign(ca, name, life); err != nil {
			return err
		}
	}
	replace, _ := cmd.Flags().GetBool("replace")
	for _, name := range names {
		if err := saved(cmd, pairs[name], dir, name, replace); err != nil {
			return err
		}
	}
	return nil
}

// fileName says whether a name can be that of files in a directory, beside a CA's.
func fileName(name string) bool {
	for _, c := range []byte(name) {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return name != "" && name[0] != '.' && name != caName
}

func saved(cmd *cobra.Command, pair certs.Pair, dir, name string, replace bool) error {
	cert, key, err := pair.Save(dir, name, replace)
	if errors.Is(err, fs.ErrExist) {
		if name == caName {
			return fmt.Errorf("%w: what it has signed would be worth nothing with another CA; a new one goes into another --dir", err)
		}
		return fmt.Errorf("%w; --replace replaces it", err)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", cert, key)
	return err
}

package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/cluster"
	"github.com/trimaran-io/trimaran/cluster/membership"
	"github.com/trimaran-io/trimaran/cluster/peertls"
	"github.com/trimaran-io/trimaran/security/certs"
)

// rereadEvery is how often files with certificates and keys are looked at. SIGHUP makes it at once.
const rereadEvery = 10 * time.Second

// peerOptions is how nodes are told from strangers.
type peerOptions struct {
	tls             *peertls.Guard // nil: connections between nodes are not secured
	gossipKeyFile   string
	gossipKeys      [][]byte // the first one encrypts; none: gossip is not encrypted
	gossipPlaintext membership.Plaintext
}

func addPeerFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("peer-tls-cert", "", "PEM `file` with this node's certificate for the connections between nodes, which then use TLS; 'trimaran cert' makes it")
	f.String("peer-tls-key", "", "PEM `file` with the certificate's key")
	f.String("peer-tls-ca", "", "PEM `file` with the CAs whose certificates nodes have, and nobody else")
	f.String("peer-tls-mode", "require", "what of other nodes is taken without TLS: accept, prefer or require; see docs/operations.md")
	f.Bool("peer-tls-require-identity", true, "refuse certificates that name no node, trimaran://node/<node id>")
	f.String("gossip-key-file", "", "`file` with keys that encrypt gossip, 16, 24 or 32 bytes in base64, one per line: the first one encrypts, all are understood; the same on all nodes")
	f.String("gossip-key-mode", "require", "what of gossip counts without a key: accept, prefer or require; see docs/operations.md")
}

// peersOf reads the flags and the files that they name.
func peersOf(cmd *cobra.Command, log *slog.Logger) (o peerOptions, err error) {
	text := func(name string) string { s, _ := cmd.Flags().GetString(name); return s }
	files := certs.Files{Cert: text("peer-tls-cert"), Key: text("peer-tls-key"), CA: text("peer-tls-ca")}
	switch given := []string{files.Cert, files.Key, files.CA}; {
	case !slices.Contains(given, ""):
		cfg := peertls.Config{Files: files, Logger: log}
		cfg.RequireIdentity, _ = cmd.Flags().GetBool("peer-tls-require-identity")
		if cfg.Mode, err = peertls.ParseMode(text("peer-tls-mode")); err != nil {
			return o, usagef("--peer-tls-mode: %v", err)
		}
		if o.tls, err = peertls.New(cfg); err != nil {
			return o, fmt.Errorf("TLS between nodes: %w", err)
		}
	case slices.ContainsFunc(given, func(s string) bool { return s != "" }):
		return o, usagef("--peer-tls-cert, --peer-tls-key and --peer-tls-ca go together")
	case cmd.Flags().Changed("peer-tls-mode"):
		return o, usagef("--peer-tls-mode means nothing without --peer-tls-cert, --peer-tls-key and --peer-tls-ca")
	}
	mode, err := peertls.ParseMode(text("gossip-key-mode"))
	if err != nil {
		return o, usagef("--gossip-key-mode: %v", err)
	}
	o.gossipPlaintext = map[peertls.Mode]membership.Plaintext{
		peertls.Require: membership.NoPlaintext, peertls.Prefer: membership.HearPlaintext, peertls.Accept: membership.SpeakPlaintext,
	}[mode]
	o.gossipKeyFile = text("gossip-key-file")
	if o.gossipKeyFile == "" && cmd.Flags().Changed("gossip-key-mode") {
		return o, usagef("--gossip-key-mode means nothing without --gossip-key-file")
	}
	o.gossipKeys, err = readGossipKeys(o.gossipKeyFile)
	return o, err
}

// warn says in what way strangers may come in although there are certificates or keys.
func (o peerOptions) warn(log *slog.Logger) {
	if o.tls != nil && o.tls.Mode() != peertls.Require {
		log.Warn("strangers are still taken for nodes without TLS, as is meant for the time of the change", "peer-tls-mode", o.tls.Mode())
	}
	switch {
	case o.tls != nil && len(o.gossipKeys) == 0:
		log.Warn("connections between nodes are secured and gossip is not: strangers can keep nodes from finding each other; --gossip-key-file")
	case len(o.gossipKeys) > 0 && o.gossipPlaintext != membership.NoPlaintext:
		log.Warn("gossip is still heard without a key, as is meant for the time of the change")
	}
}

// register adds what is to be seen of this in metrics.
func (o peerOptions) register(registry *prometheus.Registry) {
	open := 1.0
	if o.tls != nil && o.tls.Mode() == peertls.Require {
		open = 0
	}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trimaran_peers_open", Help: "1 while whoever reaches the port for other nodes is taken for one.",
	}, func() float64 { return open }))
	if o.tls == nil {
		return
	}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trimaran_peer_certificate_expiry_seconds", Help: "When this node's certificate for other nodes expires, in seconds since the epoch.",
	}, func() float64 { return float64(o.tls.Expires().Unix()) }))
}

// maxKeyFile bounds what is read of a file with keys, in bytes.
const maxKeyFile = 16 << 10

// readGossipKeys gives the keys in a file, none when there is no file to read. Empty lines and
// those that begin with # are passed over.
func readGossipKeys(path string) (keys [][]byte, err error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--gossip-key-file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("--gossip-key-file: %w", err)
	}
	wrong := fmt.Errorf("--gossip-key-file %s: want 1 to %d keys of 16, 24 or 32 bytes in base64, each on a line", path, membership.MaxKeys)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if n := len(key); err != nil || n != 16 && n != 24 && n != 32 {
			return nil, wrong
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 || len(keys) > membership.MaxKeys || len(text) > maxKeyFile {
		return nil, wrong
	}
	return keys, nil
}

// hangups tells of each SIGHUP, which makes a node read its certificates and keys again and does
// not end it.
func hangups() chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c
}

// reread reads certificates and keys again from time to time, and at once when told to, until ctx
// ends. What cannot be read or used is logged once, and the node goes on with what it has.
func (o peerOptions) reread(ctx context.Context, now <-chan os.Signal, c *cluster.Node, log *slog.Logger) {
	tick := time.NewTicker(rereadEvery)
	defer tick.Stop()
	keys, said := o.gossipKeys, ""
	warned := time.Time{}
	for {
		if o.tls != nil && time.Since(warned) > 24*time.Hour && time.Until(o.tls.Expires()) < 30*24*time.Hour {
			warned = time.Now()
			log.Warn("this node's certificate for the peer link expires soon", "expires", o.tls.Expires())
		}
		select {
		case <-ctx.Done():
			return
		case <-now:
			log.Info("certificates and keys are read again")
		case <-tick.C:
		}
		if o.tls != nil {
			o.tls.Reload()
		}
		if o.gossipKeyFile == "" {
			continue
		}
		fresh, err := readGossipKeys(o.gossipKeyFile)
		if err == nil && !slices.EqualFunc(fresh, keys, slices.Equal) {
			if err = c.SetGossipKeys(fresh); err == nil {
				keys = fresh
				log.Info("keys of gossip were read again", "keys", len(keys))
			}
		}
		if err != nil && err.Error() != said {
			log.Error("keys of gossip were not read again; those read before are used on", "error", err)
		}
		if said = ""; err != nil {
			said = err.Error()
		}
	}
}

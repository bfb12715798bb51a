package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/backup"
	"github.com/trimaran-io/trimaran/cluster/tier"
)

// tierOptions is what a node knows of the store that old records go to.
type tierOptions struct {
	url        string // "": there is none
	cacheBytes int64
	uploadRate int64 // bytes a second; 0: no bound
}

const leastTierCache = 16 << 20

func addTierFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("tier-to", "", "`URL` of the store that old records of topics with remote.storage.enable=true go to, file:///path or s3://bucket/prefix?endpoint=…; the same on all nodes, which must all reach it")
	f.Var(newByteSize(1<<30), "tier-cache-bytes", "`bytes` of the data directory, such as 10GiB, for what was read from that store")
	f.Var(newByteSize(0), "tier-upload-rate", "`bytes` a second, such as 50MB, that this node puts into that store; 0: no bound")
}

func tierOf(cmd *cobra.Command) (o tierOptions, err error) {
	o.url, _ = cmd.Flags().GetString("tier-to")
	o.cacheBytes, o.uploadRate = byteSizeOf(cmd, "tier-cache-bytes"), byteSizeOf(cmd, "tier-upload-rate")
	for _, flag := range []string{"tier-cache-bytes", "tier-upload-rate"} {
		if o.url == "" && cmd.Flags().Changed(flag) {
			return o, usagef("--%s says nothing without --tier-to", flag)
		}
	}
	switch {
	case o.cacheBytes < leastTierCache:
		return o, usagef("--tier-cache-bytes: want at least %s", showBytes(leastTierCache))
	case o.url == "":
		return o, nil
	}
	if _, err := backup.Open(o.url); err != nil {
		return o, usagef("--tier-to: %w", err)
	}
	return o, nil
}

// devTier is the store of nodes on one machine: a folder beside theirs.
func devTier(dir string) (tierOptions, error) {
	dir, err := filepath.Abs(dir)
	store := url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Join(dir, "tier"))}
	return tierOptions{url: store.String()}, err
}

// open opens the store; nil: there is none.
func (o tierOptions) open() (tier.Store, error) {
	if o.url == "" {
		return nil, nil
	}
	store, err := backup.OpenReadBack(o.url)
	if err != nil {
		return nil, err
	}
	return tierStore{store}, nil
}

// tierStore is a store of backups as package tier sees it: they are the same kinds.
type tierStore struct{ backup.Store }

// Put implements tier.Store.
func (s tierStore) Put(ctx context.Context, key string, data []byte) error {
	return ofTier(s.Store.Put(ctx, key, data))
}

// Get implements tier.Store.
func (s tierStore) Get(ctx context.Context, key string, limit int64) ([]byte, error) {
	data, err := s.Store.Get(ctx, key, limit)
	return data, ofTier(err)
}

// Same implements tier.Comparer.
func (s tierStore) Same(ctx context.Context, key string, data []byte) (bool, error) {
	is, err := s.Store.Same(ctx, key, data)
	return is, ofTier(err)
}

// List implements tier.Store.
func (s tierStore) List(ctx context.Context, prefix string, each func(key string) error) error {
	return s.Store.List(ctx, prefix, func(o backup.Stored) error { return each(o.Key) })
}

// ofTier gives an error in the words of package tier.
func ofTier(err error) error {
	switch {
	case errors.Is(err, backup.ErrExists):
		return fmt.Errorf("%w: %w", tier.ErrExists, err)
	case errors.Is(err, backup.ErrNotFound):
		return fmt.Errorf("%w: %w", tier.ErrNotFound, err)
	}
	return err
}

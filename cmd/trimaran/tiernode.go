package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/trimaran-io/trimaran/backup"
	"github.com/trimaran-io/trimaran/cluster/tier"
	"github.com/trimaran-io/trimaran/fsm"
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

// Size implements tier.Store.
func (s tierStore) Size(ctx context.Context, key string) (int64, error) {
	bytes, err := s.Store.Size(ctx, key)
	return bytes, ofTier(err)
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
	case errors.Is(err, backup.ErrFull):
		return fmt.Errorf("%w: %w", tier.ErrFull, err)
	case errors.Is(err, backup.ErrNotFound):
		return fmt.Errorf("%w: %w", tier.ErrNotFound, err)
	}
	return err
}

// tierRemains is the store of a lost cluster's tier as package backup sees it.
type tierRemains struct {
	tier.Remains
	store backup.Store
	// pieces counts the objects that lists have named, of which each takes memory.
	pieces atomic.Int64
	// aborted counts the aborted transactions that indexes have named.
	aborted atomic.Int64
}

// mostTierPieces bounds the objects of one restore, as a manifest does: they are 16 TiB of 8 MiB.
// It bounds aborted transactions as well.
const mostTierPieces = 2 << 20

func newTierRemains(url string) (*tierRemains, error) {
	store, err := backup.OpenReadBack(url) // its lists take no memory
	if err != nil {
		return nil, err
	}
	return &tierRemains{Remains: tier.Remains{Store: tierStore{store}}, store: store}, nil
}

// Owner implements backup.Tier.
func (t *tierRemains) Owner(ctx context.Context) (string, error) {
	id, err := t.Remains.Owner(ctx)
	return id, t.named(err)
}

// named says which store an error is about.
func (t *tierRemains) named(err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", t.store, err)
	}
	return err
}

// Get implements backup.Tier.
func (t *tierRemains) Get(ctx context.Context, key string, limit int64) ([]byte, error) {
	return t.store.Get(ctx, key, limit)
}

// Log implements backup.Tier.
func (t *tierRemains) Log(ctx context.Context, topic fsm.TopicID, partition int32) (*backup.TierLog, error) {
	id := fsm.PartitionID{Topic: topic, Partition: partition}
	l, err := t.List(ctx, id)
	if errors.Is(err, tier.ErrUnlisted) {
		err = fmt.Errorf("%w: %w", backup.ErrUnlisted, err)
	}
	if err != nil || l == nil {
		return nil, t.named(err)
	}
	compacted := false
	for _, s := range l.Segments {
		compacted = compacted || s.Clean > 0
		if n := t.pieces.Add(int64(s.Pieces)); n > mostTierPieces {
			return nil, t.named(fmt.Errorf("its lists name %d objects or more, and this program takes %d at most in one restore: restore some topics at a time (--topic)", n, mostTierPieces))
		}
	}
	log := &backup.TierLog{Start: int64(l.Start), End: int64(l.End), Epoch: int32(l.Term.Epoch()), Compacted: compacted}
	for _, s := range l.Segments {
		pieces, aborted, err := t.Pieces(ctx, id, s)
		if err != nil {
			return nil, t.named(err)
		}
		if !log.Compacted {
			aborted = nil // their markers are there, as all others are
		} else if n := t.aborted.Add(int64(len(aborted))); n > mostTierPieces {
			return nil, t.named(fmt.Errorf("its indexes name %d aborted transactions or more, and this program takes %d at most in one restore: restore some topics at a time (--topic)", n, mostTierPieces))
		}
		for _, p := range pieces {
			log.Objects = append(log.Objects, backup.TierObject{
				Key: p.Key, First: int64(p.First), Next: int64(p.Next), Bytes: p.Bytes, Sum: p.Sum, MaxEpoch: int32(s.LastEpoch), Aborted: aborted,
			})
		}
		// The last records of a segment may be gone.
		log.Tiered = int64(s.Next)
	}
	return log, nil
}

package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// DefaultGrace is how old an object must be that no manifest names before it is deleted: a backup
// that is being made names its objects at its end.
const DefaultGrace = 24 * time.Hour

// PruneOptions say what is deleted.
type PruneOptions struct {
	// Keep is how many backups are kept, the newest, besides those from the future; 0: all. Those
	// without records (Manifest.CatalogOnly) do not count: the newest Keep of them are kept besides
	// that are newer than every other.
	Keep int
	// Grace is how old an orphan must be to be deleted, by the store's clock; 0: DefaultGrace,
	// below 0: none are deleted.
	Grace time.Duration
	// DryRun deletes nothing and says what would be.
	DryRun bool
}

// Pruned is what was deleted.
type Pruned struct {
	Backups []string `json:"backups"`
	// Orphans are objects that no manifest names, and that were old enough; Young those that were
	// not.
	Orphans     []string `json:"orphans"`
	OrphanBytes int64    `json:"orphan_bytes"`
	Young       int      `json:"young"`
}

// Prune deletes old backups, and then objects that no manifest names. It never deletes a manifest
// of a newer program, which does not count either, and no object while there is a manifest that
// cannot be read, since that may name it: then the error says so.
func Prune(ctx context.Context, r *Repository, o PruneOptions) (*Pruned, error) {
	if _, err := r.owner(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", r.Store, err)
	}
	ids, err := r.IDs(ctx)
	if err != nil {
		return nil, err
	}
	out := &Pruned{Backups: []string{}, Orphans: []string{}}
	// In place of one from the future the one that was just made would go.
	ids = slices.DeleteFunc(ids, ahead)
	var old []string
	if o.Keep > 0 && len(ids) > o.Keep {
		if old, err = r.old(ctx, ids, o.Keep); err != nil {
			return nil, fmt.Errorf("nothing is deleted: %w", err)
		}
		for _, id := range old {
			if !o.DryRun {
				if err := r.Store.Delete(ctx, manifestKey(id)); err != nil {
					return out, err
				}
			}
			out.Backups = append(out.Backups, id)
		}
	}
	if o.Grace < 0 {
		return out, nil
	}
	orphans, err := r.orphans(ctx, o.Grace, out.Backups)
	if err != nil {
		return out, fmt.Errorf("objects that no backup names: %w", err)
	}
	for _, orphan := range orphans {
		if orphan.Young {
			out.Young++
			continue
		}
		if !o.DryRun {
			if err := r.Store.Delete(ctx, orphan.Key); err != nil {
				return out, err
			}
		}
		out.Orphans = append(out.Orphans, orphan.Key)
		out.OrphanBytes += orphan.Bytes
	}
	return out, nil
}

// old gives the backups of some that go where keep are kept. Those that stay must be whole backups,
// besides those of a newer program, which stay.
func (r *Repository) old(ctx context.Context, ids []string, keep int) (old []string, err error) {
	whole, catalogs := 0, 0
	for _, id := range slices.Backward(ids) {
		m, err := r.Manifest(ctx, id)
		if errors.Is(err, ErrNewer) {
			continue
		}
		goes := false
		if err == nil && m.CatalogOnly {
			catalogs++
			goes = whole > 0 || catalogs > keep
		} else {
			whole++
			goes = whole > keep
		}
		switch {
		case goes:
			old = append(old, id)
		case err != nil:
			return nil, err
		}
	}
	slices.Reverse(old)
	return old, nil
}

// Orphan is an object of backups that no manifest names.
type Orphan struct {
	Key    string    `json:"key"`
	Bytes  int64     `json:"bytes"`
	Stored time.Time `json:"stored"` // by the store's clock
	// Young: the store has not had it for the grace time. A backup that is being made may name it.
	Young bool `json:"young"`
}

// Orphans gives the objects that no backup names, by their keys: those that Prune deletes with the
// same grace time, 0: DefaultGrace, and the young ones. It reads all manifests and no records;
// where one cannot be read, which may name any of them, that is an error.
func Orphans(ctx context.Context, r *Repository, grace time.Duration) ([]Orphan, error) {
	if _, err := r.owner(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", r.Store, err)
	}
	return r.orphans(ctx, grace, nil)
}

// orphans is Orphans as if backups were gone. The objects are listed first: what a backup names
// that is made meanwhile is older than its manifest.
func (r *Repository) orphans(ctx context.Context, grace time.Duration, gone []string) ([]Orphan, error) {
	if grace == 0 {
		grace = DefaultGrace
	}
	all, newest := []Orphan{}, time.Time{}
	if err := r.Store.List(ctx, segmentsDir, func(s Stored) error {
		all = append(all, Orphan{Key: s.Key, Bytes: s.Bytes, Stored: s.Modified})
		if s.Modified.After(newest) {
			newest = s.Modified
		}
		return nil
	}); err != nil {
		return nil, err
	}
	ids, err := r.IDs(ctx)
	if err != nil {
		return nil, err
	}
	named := map[string]bool{}
	for _, id := range ids {
		if slices.Contains(gone, id) {
			continue
		}
		m, err := r.Manifest(ctx, id)
		if errors.Is(err, ErrNotFound) {
			continue // somebody else deleted it
		}
		if err != nil {
			return nil, err
		}
		for _, key := range m.objects() {
			named[key] = true
		}
	}
	// The store's clock may be another than ours: what it has stored last is not from the future.
	now := time.Now()
	if newest.After(now) {
		now = newest
	}
	orphans := slices.DeleteFunc(all, func(o Orphan) bool { return named[o.Key] })
	for i := range orphans {
		orphans[i].Young = now.Sub(orphans[i].Stored) < grace
	}
	slices.SortFunc(orphans, func(a, b Orphan) int { return strings.Compare(a.Key, b.Key) })
	return orphans, nil
}

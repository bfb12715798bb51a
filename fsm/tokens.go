package fsm

import (
	"fmt"
	"slices"

	"github.com/trimaran-io/trimaran/outcome"
)

// tokenSeed is the size of an Ed25519 key's seed.
const tokenSeed = 32

func (k TokenKey) check() error {
	if k.ID == "" || len(k.ID) > 64 || len(k.Seed) != tokenSeed {
		return fmt.Errorf("%w: a token key has an id of 1 to 64 bytes and a seed of %d", outcome.ErrInvalidConfig, tokenSeed)
	}
	return nil
}

func (r Revocation) check() error {
	if (r.Token == "") == (r.Principal == "") || len(r.Token) > maxRevokedLen || len(r.Principal) > maxRevokedLen {
		return fmt.Errorf("%w: either a token or a principal's are revoked, by a name of at most %d bytes", outcome.ErrInvalidConfig, maxRevokedLen)
	}
	return nil
}

func (c *Catalog) alterTokens(index Index, a *AlterTokens) (*Topics, error) {
	view, next := c.changedSecurity(index)
	old := *next
	next.keys = slices.DeleteFunc(slices.Clone(old.keys), func(k TokenKey) bool { return slices.Contains(a.RemoveKeys, k.ID) })
	for _, k := range a.AddKeys {
		if err := k.check(); err != nil {
			return nil, err
		}
		// A key that arrives twice is there once, and one that is removed does not come back.
		known := func(have TokenKey) bool { return have.ID == k.ID }
		if !slices.ContainsFunc(next.keys, known) && !slices.Contains(a.RemoveKeys, k.ID) {
			next.keys = append(next.keys, k)
		}
	}
	next.revoked = slices.DeleteFunc(slices.Clone(old.revoked), func(r Revocation) bool { return r.Until < a.Now })
	for _, r := range a.Revoke {
		if err := r.check(); err != nil {
			return nil, err
		}
		if !slices.Contains(next.revoked, r) {
			next.revoked = append(next.revoked, r)
		}
	}
	if len(next.keys) > maxTokenKeys || len(next.revoked) > maxRevoked {
		return nil, outcome.With(outcome.ErrPolicy, fmt.Errorf("there would be %d token keys and %d revocations, and %d and %d are the most",
			len(next.keys), len(next.revoked), maxTokenKeys, maxRevoked))
	}
	sameKeys := slices.EqualFunc(old.keys, next.keys, func(a, b TokenKey) bool { return a.ID == b.ID })
	if sameKeys && slices.Equal(old.revoked, next.revoked) {
		return c.view, nil
	}
	return view, nil
}

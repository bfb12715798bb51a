package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/security"
)

// keeper has what a cluster keeps about logins, as this node knows it at this moment.
type keeper interface {
	Topics() *fsm.Topics
	CatalogChanged() <-chan struct{}
	CatalogKnown() bool
	AlterTokens(ctx context.Context, alter fsm.AlterTokens) error
	AlterCredentials(ctx context.Context, alter fsm.AlterCredentials) error
}

// catalogKeys gives logins the users and the keys of tokens that the catalog keeps. It implements
// security.Credentials and token.Keys.
type catalogKeys struct {
	cluster keeper
	revoked *atomic.Pointer[revocations] // what was looked up last; nil: it is looked up each time
}

// revocations are what was revoked, to be found at once: all sessions ask four times a second.
type revocations struct {
	of         *fsm.Security
	tokens     map[string]bool
	principals map[string]int64 // tokens of until then, in ms since epoch
}

func (k catalogKeys) revocations() *revocations {
	now := k.security()
	if k.revoked != nil {
		if r := k.revoked.Load(); r != nil && r.of == now {
			return r
		}
	}
	r := &revocations{of: now, tokens: map[string]bool{}, principals: map[string]int64{}}
	for _, one := range now.Revoked() {
		if one.Token != "" {
			r.tokens[one.Token] = true
		}
		if one.Principal != "" {
			r.principals[one.Principal] = max(r.principals[one.Principal], one.Before)
		}
	}
	if k.revoked != nil {
		k.revoked.Store(r)
	}
	return r
}

func (k catalogKeys) security() *fsm.Security { return k.cluster.Topics().Security() }

// Scram implements security.Credentials.
func (k catalogKeys) Scram(user, mechanism string) (security.ScramCredential, bool) {
	return k.security().Scram(user, mechanism)
}

// LoginSecret is what salts of users that there are none of come from.
func (k catalogKeys) LoginSecret() []byte { return k.security().Secret() }

// Signer implements token.Keys: the newest key signs.
func (k catalogKeys) Signer() (id string, key ed25519.PrivateKey, ok bool) {
	all := k.security().TokenKeys()
	if len(all) == 0 {
		return "", nil, false
	}
	newest := all[len(all)-1]
	return newest.ID, ed25519.NewKeyFromSeed(newest.Seed), true
}

// Verifier implements token.Keys.
func (k catalogKeys) Verifier(id string) (ed25519.PublicKey, bool) {
	for _, one := range k.security().TokenKeys() {
		if one.ID == id {
			return ed25519.NewKeyFromSeed(one.Seed).Public().(ed25519.PublicKey), true
		}
	}
	return nil, false
}

// Known implements token.Keys.
func (k catalogKeys) Known(id string) bool {
	return slices.ContainsFunc(k.security().TokenKeys(), func(one fsm.TokenKey) bool { return one.ID == id })
}

// Revoked implements token.Keys.
func (k catalogKeys) Revoked(id string, principal security.Principal, issued time.Time) bool {
	r := k.revocations()
	before, all := r.principals[principal.String()]
	return r.tokens[id] || all && issued.UnixMilli() <= before
}

// firstKey is the id of the first key: of several nodes that propose one at once the first has it,
// and the others' are the same key and change nothing.
const firstKey = "1"

// makeFirstKey has the cluster get a key to sign tokens and tickets with, if it has none, as soon
// as its nodes know of such keys. It returns when there is one or ctx ends.
func (k catalogKeys) makeFirstKey(ctx context.Context, log *slog.Logger) {
	for {
		changed := k.cluster.CatalogChanged()
		known := k.cluster.CatalogKnown()
		if len(k.security().TokenKeys()) > 0 {
			return
		}
		pause := time.Minute // until the catalog changes, as when its level rises
		if !known {
			pause = time.Second
		} else if k.cluster.Topics().CheckFeatureLevel(&fsm.CatalogCommand{AlterTokens: &fsm.AlterTokens{}}) == nil {
			pause = time.Second
			seed := make([]byte, ed25519.SeedSize)
			_, _ = rand.Read(seed) // never fails (crypto/rand)
			now := time.Now().UnixMilli()
			one, cancel := context.WithTimeout(ctx, 10*time.Second)
			err := k.cluster.AlterTokens(one, fsm.AlterTokens{AddKeys: []fsm.TokenKey{{ID: firstKey, Seed: seed, Created: now}}, Now: now})
			cancel()
			if err != nil {
				log.Debug("no key for tokens yet", "error", err)
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

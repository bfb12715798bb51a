package main

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trimaran-io/trimaran/fsm"
	"github.com/trimaran-io/trimaran/security"
	"github.com/trimaran-io/trimaran/security/token"
)

// keptHere is a keeper of one catalog, for tests.
type keptHere struct {
	mu      sync.Mutex
	catalog *fsm.Catalog
	index   fsm.Index
	changed chan struct{}
}

func (k *keptHere) Topics() *fsm.Topics {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.catalog.View()
}

func (k *keptHere) CatalogChanged() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changed
}

func (k *keptHere) AlterTokens(_ context.Context, alter fsm.AlterTokens) error {
	return k.apply(fsm.CatalogCommand{AlterTokens: &alter})
}

func (k *keptHere) apply(c fsm.CatalogCommand) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.index++
	result := k.catalog.Apply(k.index, c.Encode())
	close(k.changed)
	k.changed = make(chan struct{})
	return result.Err
}

// A cluster gets one key as soon as its level allows it, whoever asks for it; what it signs is read
// until it is revoked, by its id or with all that its principal had.
func TestKeysOfTokensAreInTheCatalog(t *testing.T) {
	k := &keptHere{catalog: fsm.NewCatalog(), changed: make(chan struct{})}
	keys := catalogKeys{cluster: k, revoked: new(atomic.Pointer[revocations])}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var nodes sync.WaitGroup
	for range 3 {
		nodes.Go(func() { keys.makeFirstKey(ctx, slog.New(slog.DiscardHandler)) })
	}
	if _, _, ok := keys.Signer(); ok {
		t.Error("there is a key below its level")
	}
	form := &fsm.FormCluster{ClusterID: "c", Nodes: []fsm.Node{{ID: "n1", Incarnation: "aaaaaaaa", FeatureLevel: 4}}}
	if err := k.apply(fsm.CatalogCommand{FormCluster: form}); err != nil {
		t.Fatal(err)
	}
	if err := k.apply(fsm.CatalogCommand{RaiseFeatureLevel: &fsm.RaiseFeatureLevel{FeatureLevel: 4}}); err != nil {
		t.Fatal(err)
	}
	nodes.Wait()
	if n := len(keys.security().TokenKeys()); n != 1 {
		t.Fatalf("%d keys, error of the wait %v", n, ctx.Err())
	}
	now := time.Now()
	alice := security.User("alice")
	scope := security.Scope{{Resource: security.GroupResource, Name: "g"}}
	sign := func(id string) string {
		text, err := token.Sign(keys, "c", token.Claims{ID: id, Principal: alice, Issued: now, Expires: now.Add(time.Hour), Scope: scope})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	read := func(text string) error {
		_, err := token.Read(keys, "c", text, now)
		return err
	}
	one, two := sign("1"), sign("2")
	if read(one) != nil || read(two) != nil {
		t.Fatal(read(one), read(two))
	}
	until := now.Add(time.Hour).UnixMilli()
	if err := k.AlterTokens(ctx, fsm.AlterTokens{Revoke: []fsm.Revocation{{Token: "1", Until: until}}, Now: now.UnixMilli()}); err != nil {
		t.Fatal(err)
	}
	if read(one) == nil || read(two) != nil {
		t.Error("revoking one token:", read(one), read(two))
	}
	all := fsm.Revocation{Principal: alice.String(), Before: now.UnixMilli(), Until: until}
	if err := k.AlterTokens(ctx, fsm.AlterTokens{Revoke: []fsm.Revocation{all}, Now: now.UnixMilli()}); err != nil {
		t.Fatal(err)
	}
	if read(two) == nil {
		t.Error("a token of a principal whose tokens were revoked is taken")
	}
}

// To ask whether a token was revoked costs the same whatever else was: each session asks again and
// again.
func TestManyRevocationsAreAskedAtOnce(t *testing.T) {
	k := &keptHere{catalog: fsm.NewCatalog(), changed: make(chan struct{})}
	formed := &fsm.FormCluster{ClusterID: "c", Nodes: []fsm.Node{{ID: "n1", Incarnation: "aaaaaaaa", FeatureLevel: fsm.FeatureLevel}}}
	alter := &fsm.AlterTokens{Now: 1}
	for range 9_000 {
		alter.Revoke = append(alter.Revoke, fsm.Revocation{Token: token.NewID(), Until: 1 << 50})
	}
	for _, c := range []fsm.CatalogCommand{{FormCluster: formed}, {RaiseFeatureLevel: &fsm.RaiseFeatureLevel{FeatureLevel: fsm.FeatureLevel}}, {AlterTokens: alter}} {
		if err := k.apply(c); err != nil {
			t.Fatal(err)
		}
	}
	keys := catalogKeys{cluster: k, revoked: new(atomic.Pointer[revocations])}
	if !keys.Revoked(alter.Revoke[8_999].Token, security.User("alice"), time.Now()) {
		t.Error("the last one is not revoked")
	}
	if n := testing.AllocsPerRun(100, func() { keys.Revoked("other", security.User("alice"), time.Now()) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}
